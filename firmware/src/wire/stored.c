/* Samples of put_data in a storage: part behind part as they came, each padded to 8 bytes, before it two words: its samples, its
 * bytes. A part with the colours of the part before it (SAME) lies without its head and these, however small the parts are that a
 * node's memory takes. Memory holds the colours of the part that was read last. A host sends all anew after a restart. */
#include "../bytes.h"
#include "service.h"

enum { HEAD = 8, SHARD_HEAD = 4, PALETTE_HEAD = 8, LABEL = 2, NUMBERS = 2 };
#define SAME 0x80000000u

static bool words(const ft_storage *from, uint32_t at, uint32_t to[NUMBERS])
{
    uint8_t bytes[4 * NUMBERS];
    if (from->read(from->ctx, FT_AREA_SAMPLES, at, bytes, sizeof bytes) != 0)
        return false;
    for (int i = 0; i < NUMBERS; i++)
        to[i] = ft_load_u32(bytes + 4 * i);
    return true;
}

static uint32_t palette_bytes(uint32_t colours) { return PALETTE_HEAD + colours * (uint32_t)sizeof(float); }

/* The part from `at` on, whose first sample has this number, becomes the one that was read last: part 0 or the one behind. */
static bool open_part(struct ft_stored *d, uint32_t at, uint32_t first)
{
    const ft_storage *from = d->storage;
    uint32_t head[NUMBERS], shard[NUMBERS];
    d->count = 0;
    if (at + HEAD + PALETTE_HEAD > d->end || !words(from, at, head) || !words(from, at + HEAD, shard) || head[0] == 0
        || head[1] > d->end - at - HEAD)
        return false;
    d->at = at;
    d->bytes = head[1];
    d->first = first;
    d->numbers = at + HEAD;
    if (!(head[0] & SAME)) {
        d->colours = shard[0] ? (shard[1] & 0xFF) + 1 : 0; /* put_data checked it: at most 256 */
        d->numbers += d->colours ? palette_bytes(d->colours) : SHARD_HEAD;
        if (d->colours
            && from->read(from->ctx, FT_AREA_SAMPLES, at + HEAD + PALETTE_HEAD, d->colour, d->colours * (uint32_t)sizeof(float)))
            return false;
    }
    d->count = head[0] & ~SAME;
    return true;
}

static bool find(struct ft_stored *d, uint32_t index)
{
    if ((d->count == 0 || index < d->first) && !open_part(d, 0, 0))
        return false;
    while (index - d->first >= d->count)
        if (!open_part(d, d->at + HEAD + ft_align8(d->bytes), d->first + d->count))
            return false;
    return true;
}

/* Every target is little-endian, so numbers and colours lie in the storage as in memory. */
static int read_sample(void *ctx, uint32_t index, float *x, uint16_t *label)
{
    const ft_service *s = ctx;
    struct ft_stored *d = s->stored;
    const ft_storage *from = d->storage;
    if (!find(d, index))
        return 1;
    uint32_t number = index - d->first, part = d->at + HEAD, size = d->colours ? 1 : sizeof(float);
    uint32_t at = d->numbers + number * s->floats * size;
    uint8_t *bytes = (uint8_t *)(x + s->floats) - s->floats * size, two[LABEL];
    if (from->read(from->ctx, FT_AREA_SAMPLES, at, bytes, s->floats * size) != 0
        || from->read(from->ctx, FT_AREA_SAMPLES, part + d->bytes - LABEL * (d->count - number), two, LABEL) != 0)
        return 1;
    for (uint32_t i = 0; d->colours && i < s->floats; i++) /* bytes lie at the end of x: each is read before it is overwritten */
        x[i] = d->colour[bytes[i]];
    *label = ft_load_u16(two);
    return 0;
}

/* Whether the part has the colours of the last one in the storage, which becomes the one that was read last. */
static bool same_colours(ft_service *s, const uint8_t *part)
{
    struct ft_stored *d = s->stored;
    uint32_t colours = ft_load_u32(part) ? ft_load_u16(part + SHARD_HEAD) + 1u : 0;
    return colours && s->samples && find(d, s->samples - 1) && d->colours == colours
           && memcmp(part + PALETTE_HEAD, d->colour, colours * sizeof(float)) == 0;
}

static bool add(ft_service *s, uint32_t first, uint32_t count, const ft_wire_object *part, ft_wire_reply *reply)
{
    struct ft_stored *d = s->stored;
    const ft_storage *to = d->storage;
    uint8_t head[HEAD];
    if (first == 0) {
        d->end = d->count = 0;
        if (to->erase(to->ctx, FT_AREA_SAMPLES) != 0) {
            ft_wire_fail(reply, FT_ERR_DATA, "the storage of the samples cannot be erased", 0, 0);
            return false;
        }
    }
    if (count == 0)
        return true;
    uint32_t room = to->bytes[FT_AREA_SAMPLES] - d->end, same = first && same_colours(s, part->at) ? SAME : 0;
    uint32_t skip = same ? palette_bytes(d->colours) : 0, length = part->ref.length - skip, end = ft_align8(length);
    uint8_t *bytes = part->at + skip; /* behind the part lie 8 bytes that nobody uses, and more: what it is padded by */
    if (end > room || HEAD > room - end)
        return ft_service_no_room(reply, length, room);
    ft_store_u32(head, count | same);
    ft_store_u32(head + 4, length);
    memset(bytes + length, 0, end - length);
    if (to->write(to->ctx, FT_AREA_SAMPLES, d->end + HEAD, bytes, end) != 0
        || to->write(to->ctx, FT_AREA_SAMPLES, d->end, head, HEAD) != 0) {
        ft_wire_fail(reply, FT_ERR_DATA, "the storage of the samples cannot be written at %", d->end, 0);
        return false;
    }
    d->end += HEAD + end;
    return true;
}

bool ft_service_store_samples(ft_service *s, const ft_storage *storage)
{
    typedef char fits[sizeof(struct ft_stored) <= FT_SERVICE_STORED && FT_SERVICE_STORED % 8 == 0 ? 1 : -1];
    (void)sizeof(fits);
    if (!storage || !storage->bytes[FT_AREA_SAMPLES] || s->bytes < FT_SERVICE_STORED)
        return false;
    s->bytes -= FT_SERVICE_STORED;
    s->samples_at = s->bytes;
    s->stored = (struct ft_stored *)(void *)(s->memory + s->bytes);
    memset(s->stored, 0, sizeof *s->stored);
    s->stored->read = read_sample;
    s->stored->add = add;
    s->stored->storage = storage;
    return true;
}
