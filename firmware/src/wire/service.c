#include "service.h"

#include <stddef.h>
#include <string.h>

void ft_service_start(ft_service *s, void *memory, uint32_t bytes, const ft_data *own)
{
    memset(s, 0, sizeof *s);
    s->memory = memory;
    s->bytes = s->samples_at = bytes & ~7u;
    s->own = own;
}

ft_node *ft_service_node(const ft_service *s) { return s->node; }

uint32_t ft_service_below(const ft_service *s)
{
    return s->node ? s->arena_at + ft_align8(ft_memory_of(s->node)->bank[s->bank_count]) : ft_align8(s->model_bytes);
}

bool ft_service_wrong(ft_wire_reply *reply)
{
    ft_wire_fail(reply, FT_ERR_ARG, "not this task's parameters or objects", 0, 0);
    return false;
}

bool ft_service_no_room(ft_wire_reply *reply, uint32_t bytes, uint32_t room)
{
    ft_wire_fail(reply, FT_ERR_NOMEM, "% bytes wanted, % free: fewer samples or a smaller model", bytes, room);
    return false;
}

static bool no_model(ft_wire_reply *reply)
{
    ft_wire_fail(reply, FT_ERR_STATE, "no model yet: load one first", 0, 0);
    return false;
}

/* A new model takes the old one's place, so that goes first. */
static uint8_t *place_model(ft_service *s, const ft_wire_ref *ref, bool *have, ft_wire_reply *reply)
{
    *have = s->model_bytes == ref->length && memcmp(s->model, ref->hash, FT_WIRE_HASH) == 0;
    if (*have)
        return s->memory;
    s->node = 0;
    s->model_bytes = 0;
    if (ref->length <= s->samples_at)
        return s->memory;
    ft_service_no_room(reply, ref->length, s->samples_at);
    return 0;
}

static uint8_t *place(void *ctx, const ft_wire_task *task, uint32_t i, bool *have, ft_wire_reply *reply)
{
    ft_service *s = ctx;
    const ft_wire_ref *ref = &task->objects[i].ref;
    if (task->kind == FT_DO_LOAD && i == 0 && ref->kind == FT_KIND_MODEL)
        return place_model(s, ref, have, reply);
    if (task->kind == FT_DO_PUT_DATA && i == 0) {
        uint32_t at = FT_SERVICE_NOWHERE;
        if (s->own)
            ft_wire_fail(reply, FT_ERR_STATE, "the node has samples of its own", 0, 0);
        else
            at = ft_samples_place(s, task, ref->length, reply);
        return at == FT_SERVICE_NOWHERE ? 0 : s->memory + at;
    }
    if (!s->node) {
        no_model(reply);
        return 0;
    }
    uint32_t at = ft_work_at(s, task->kind);
    for (uint32_t k = 0; k < i; k++)
        at += ft_align8(task->objects[k].ref.length); /* each was found to fit */
    uint32_t room = at < s->samples_at ? s->samples_at - at : 0;
    if (ref->length <= room && ft_align8(ref->length) <= room)
        return s->memory + at;
    ft_service_no_room(reply, ref->length, room);
    return 0;
}

static void add_memory(const ft_service *s, ft_wire_reply *reply)
{
    uint32_t kinds[9] = {0}; /* the first fields of ft_memory */
    if (s->node)
        memcpy(kinds, ft_memory_of(s->node), sizeof kinds);
    for (uint32_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        ft_wire_add_integer(reply, kinds[i]);
}

static bool configuration(const ft_wire_task *task, ft_config *config)
{
#define FIELD(name) {offsetof(ft_config, name), sizeof(((ft_config *)0)->name)}
    static const struct {
        uint8_t at, bytes;
    } fields[] = {FIELD(micro_batch), FIELD(norm), FIELD(topk_max), FIELD(score_tile_bytes), FIELD(modes),      FIELD(keep),
                  FIELD(lean),        FIELD(layerwise), FIELD(plain_sgd), FIELD(last_layers), FIELD(loss)};
#undef FIELD
    uint32_t n[sizeof fields / sizeof *fields];
    memset(config, 0, sizeof *config);
    if (!ft_wire_numbers(task, "iiiiiiiiiii", n))
        return false;
    for (uint32_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].bytes < sizeof *n && n[i] >> 8 * fields[i].bytes)
            return false;
        memcpy((uint8_t *)config + fields[i].at, &n[i], fields[i].bytes); /* every target is little-endian */
    }
    return true;
}

static void load(ft_service *s, const ft_wire_task *task, ft_wire_reply *reply)
{
    ft_config config;
    uint32_t needed = 0;
    if (task->object_count != 1 || task->objects[0].ref.kind != FT_KIND_MODEL || !configuration(task, &config)) {
        ft_service_wrong(reply);
        return;
    }
    s->node = 0;
    s->model_bytes = task->objects[0].ref.length;
    memcpy(s->model, task->objects[0].ref.hash, FT_WIRE_HASH);
    s->arena_at = ft_align8(s->model_bytes);
    uint32_t room = s->arena_at < s->samples_at ? s->samples_at - s->arena_at : 0;
    ft_status status = s->load ? s->load(s, room, &config, &needed)
                               : ft_load(s->memory + s->arena_at, room, s->memory, s->model_bytes, &config, &s->node, &needed);
    if (status == FT_ERR_NOMEM)
        ft_service_no_room(reply, needed, room);
    reply->status = (uint8_t)status;
    if (status != FT_OK)
        return;
    ft_samples_bind(s, reply);
    uint32_t peak = ft_memory_of(s->node)->peak;
    s->peak = peak > s->peak ? peak : s->peak;
    ft_wire_add_integer(reply, peak);
    add_memory(s, reply);
}

static void describe(const ft_service *s, ft_wire_reply *reply)
{
    ft_data data;
    const ft_data *samples = ft_samples_own(s, &data);
    ft_wire_add_integer(reply, samples->count);
    ft_wire_add_integer(reply, samples->dev_count);
}

static void report(const ft_service *s, const ft_wire_counts *counts, uint32_t boots, ft_wire_reply *reply)
{
    ft_wire_add_integer(reply, s->peak);
    ft_wire_add_integer(reply, counts->busy_ms);
    ft_wire_add_integer(reply, counts->tasks);
    add_memory(s, reply);
    ft_wire_add_integer(reply, boots);
    ft_wire_add_integer(reply, counts->dropped);
    ft_wire_add_integer(reply, counts->asked_again);
}

static void do_task(ft_service *s, const ft_wire_task *task, const ft_wire_counts *counts, uint32_t boots, ft_wire_reply *reply)
{
    switch (task->kind) {
    case FT_DO_DESCRIBE:
        describe(s, reply);
        break;
    case FT_DO_REPORT:
        report(s, counts, boots, reply);
        break;
    case FT_DO_PUT_DATA:
        ft_samples_put(s, task, reply);
        break;
    case FT_DO_LOAD:
        load(s, task, reply);
        break;
    default:
        if (s->node)
            ft_work_do(s, task, reply);
        else
            no_model(reply);
    }
}

/* A task that failed gives nothing but the reason. */
static void work(void *ctx, const ft_wire_task *task, const ft_wire_counts *counts, uint32_t boots, ft_wire_reply *reply)
{
    do_task(ctx, task, counts, boots, reply);
    if (!reply->status)
        return;
    reply->object_count = reply->result_bytes = 0;
    if (!reply->problem)
        ft_wire_fail(reply, (ft_status)reply->status, ft_status_text((ft_status)reply->status), 0, 0);
}

static void room(void *ctx, uint32_t *arena_bytes, uint32_t *free_bytes)
{
    const ft_service *s = ctx;
    uint32_t below = ft_service_below(s);
    *arena_bytes = s->bytes;
    *free_bytes = s->samples_at > below ? s->samples_at - below : 0;
}

ft_wire_tasks ft_service_tasks(ft_service *s) { return (ft_wire_tasks){s, place, work, room}; }
