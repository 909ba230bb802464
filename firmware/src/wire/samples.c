/* Samples that put_data brings stay as they came, part below part from the end of the memory; behind each part two words: its
 * samples, its bytes. */
#include "../bytes.h"
#include "service.h"

enum { HEAD = 4, PALETTE_HEAD = 8, TAIL = FT_SAMPLES_TAIL, LABEL = 2, PALETTE = 1 };

bool ft_shard_open(ft_shard *shard, const uint8_t *bytes, uint32_t length, uint32_t floats, bool labels)
{
    uint32_t head = HEAD, number = sizeof(float);
    shard->colours = 0;
    if (length < HEAD || ft_load_u32(bytes) > PALETTE || floats == 0 || floats > 1u << 24)
        return false;
    if (bytes[0] == PALETTE) {
        if (length < PALETTE_HEAD)
            return false;
        uint32_t colours = ft_load_u16(bytes + HEAD) + 1u;
        head = PALETTE_HEAD + colours * (uint32_t)sizeof(float);
        number = 1;
        if (colours > 256 || ft_load_u16(bytes + HEAD + 2) || length < head)
            return false;
        shard->colours = bytes + PALETTE_HEAD;
    }
    uint32_t sample = floats * number + (labels ? LABEL : 0);
    shard->numbers = bytes + head;
    shard->count = (length - head) / sample;
    if (shard->count * sample != length - head)
        return false;
    return true;
}

bool ft_shard_check(const ft_shard *shard, uint32_t floats)
{
    if (!shard->colours)
        return true;
    uint32_t colours = (uint32_t)(shard->numbers - shard->colours) / (uint32_t)sizeof(float);
    for (uint32_t i = 0; i < shard->count * floats; i++)
        if (shard->numbers[i] >= colours)
            return false;
    return true;
}

void ft_shard_read(const ft_shard *shard, uint32_t index, uint32_t floats, float *x)
{
    uint32_t first = index * floats;
    for (uint32_t i = 0; i < floats; i++)
        x[i] = ft_load_f32(shard->colours ? shard->colours + sizeof(float) * shard->numbers[first + i]
                                          : shard->numbers + sizeof(float) * (first + i));
}

static int read_sample(void *ctx, uint32_t index, float *x, uint16_t *label)
{
    const ft_service *s = ctx;
    ft_shard shard;
    for (uint32_t end = s->bytes; end > s->samples_at;) {
        const uint8_t *tail = s->memory + end - TAIL;
        uint32_t count = ft_load_u32(tail), length = ft_load_u32(tail + 4);
        end -= TAIL + ft_align8(length);
        if (index < count) {
            const uint8_t *part = s->memory + end;
            ft_shard_open(&shard, part, length, s->floats, true);
            ft_shard_read(&shard, index, s->floats, x);
            *label = ft_load_u16(part + length - LABEL * (count - index));
            return 0;
        }
        index -= count;
    }
    return 1;
}

const ft_data *ft_samples_own(const ft_service *s, ft_data *data)
{
    bool whole = s->samples == s->samples_in_all;
    if (s->own)
        return s->own;
    *data = (ft_data){(void *)(uintptr_t)s, s->stored ? s->stored->read : read_sample, whole ? s->samples : 0, whole ? s->dev_samples : 0};
    return data;
}

void ft_samples_bind(ft_service *s, ft_wire_reply *reply)
{
    ft_data data;
    const ft_data *samples = ft_samples_own(s, &data);
    if (!s->node)
        return;
    if (!s->own && samples->count && s->floats != ft_input_size(s->node)) {
        ft_wire_fail(reply, FT_ERR_ARG, "samples of % numbers, the model takes %", s->floats, ft_input_size(s->node));
        data.count = data.dev_count = 0;
    }
    ft_set_data(s->node, samples);
}

typedef struct {
    uint32_t first, part, all, dev, floats;
} put;

static bool parameters(const ft_wire_task *task, put *p, ft_wire_reply *reply)
{
    uint32_t n[5];
    bool good = ft_wire_numbers(task, "iiiii", n);
    memcpy(p, n, sizeof n);
    if (good && p->all <= 0x7FFFFFFFu && p->part <= p->all && p->first <= p->all - p->part && p->dev <= p->all)
        return true;
    return ft_service_wrong(reply);
}

uint32_t ft_samples_place(ft_service *s, const ft_wire_task *task, uint32_t length, ft_wire_reply *reply)
{
    put p;
    if (!parameters(task, &p, reply))
        return FT_SERVICE_NOWHERE;
    if (p.first == 0) { /* the old ones go before the new ones come */
        s->samples_at = s->bytes;
        s->samples = s->samples_in_all = s->dev_samples = 0;
        if (s->node && p.floats != ft_input_size(s->node)) { /* an earlier run's model, which could do nothing with them */
            s->node = 0;
            s->model_bytes = 0;
        }
        ft_samples_bind(s, reply);
    } else if (p.first != s->samples || p.all != s->samples_in_all || p.floats != s->floats) {
        ft_wire_fail(reply, FT_ERR_STATE, "there are % samples, no part begins at %", s->samples, p.first);
        return FT_SERVICE_NOWHERE;
    }
    uint32_t below = ft_service_below(s), room = s->samples_at - below;
    if (length > room || ft_align8(length) + TAIL > room) {
        ft_service_no_room(reply, length, room);
        return FT_SERVICE_NOWHERE;
    }
    return s->samples_at - TAIL - ft_align8(length);
}

void ft_samples_put(ft_service *s, const ft_wire_task *task, ft_wire_reply *reply)
{
    put p;
    ft_shard shard;
    const ft_wire_ref *ref = &task->objects[0].ref;
    if (!parameters(task, &p, reply))
        return;
    if (task->object_count != 1 || ref->kind != FT_KIND_SAMPLES
        || !ft_shard_open(&shard, task->objects[0].at, ref->length, p.floats, true) || shard.count != p.part
        || !ft_shard_check(&shard, p.floats)) {
        ft_service_wrong(reply);
        return;
    }
    if (s->stored) {
        if (!s->stored->add(s, p.first, p.part, &task->objects[0], reply))
            return;
    } else {
        ft_store_u32(s->memory + s->samples_at - TAIL, p.part);
        ft_store_u32(s->memory + s->samples_at - TAIL + 4, ref->length);
        s->samples_at -= TAIL + ft_align8(ref->length);
    }
    s->samples += p.part;
    s->samples_in_all = p.all;
    s->dev_samples = p.dev;
    s->floats = p.floats;
    ft_samples_bind(s, reply);
}
