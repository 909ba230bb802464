/* Saving a model is reading it out as the objects of a LOAD and an INSTALL; bringing it up is doing these two tasks. The core's work memory,
 * idle between two calls, is the desk for both. */
#include "fedtiny_storage.h"

#include "../bytes.h"
#include "../blob.h"
#include "service.h"
#include "wire.h"

enum { SEQUENCE = 4, RUN = 8, ROUND = 16, LENGTHS = 20, PARAMETER_BYTES = 36, OWNER = 37, HASH = 40, PARAMETERS = 56, CHECK = 8 };
enum { MODEL, MASKS, VALUES, STATISTICS, PARTS };
enum { VECTOR_HEAD = 4, MASK_HEAD = 8, RUN_BYTES = 8, OWNER_BYTES = 3, PROBES = 16 };
static const uint8_t magic[4] = {'F', 'T', 'M', 'D'};
static const uint8_t kinds[PARTS] = {FT_KIND_MODEL, FT_KIND_MASKS, FT_KIND_VALUES, FT_KIND_STATISTICS};

static uint32_t length_of(const uint8_t *head, uint32_t part) { return ft_load_u32(head + LENGTHS + 4 * part); }

/* Bytes of the whole slot; 0: no such slot can be. */
static uint32_t slot_bytes(const uint8_t *head, uint32_t most)
{
    uint32_t bytes = FT_SAVER_HEAD + CHECK;
    for (uint32_t part = 0; part < PARTS; part++) {
        uint32_t length = length_of(head, part);
        if (bytes > most || length > most - bytes || ft_align8(length) > most - bytes)
            return 0;
        bytes += ft_align8(length);
    }
    return bytes;
}

static bool read(const ft_saver *v, uint32_t area, uint32_t at, void *to, uint32_t count)
{
    return v->storage->read(v->storage->ctx, area, at, to, count) == 0;
}

/* Is the slot whole? Reads it piece by piece into a buffer. */
static bool good(const ft_saver *v, uint32_t area, uint8_t *head, uint8_t *buffer, uint32_t room)
{
    if (!room || !read(v, area, 0, head, FT_SAVER_HEAD) || memcmp(head, magic, sizeof magic) != 0
        || head[PARAMETER_BYTES] > FT_SAVER_PARAMETERS)
        return false;
    uint32_t end = slot_bytes(head, v->storage->bytes[area]), crc = 0xFFFFFFFFu, count;
    uint8_t check[CHECK];
    if (!end)
        return false;
    end -= CHECK;
    for (uint32_t at = 0; at < end; at += count) {
        count = end - at < room ? end - at : room;
        if (!read(v, area, at, buffer, count))
            return false;
        crc = ft_blob_crc(crc, buffer, count);
    }
    return read(v, area, end, check, CHECK) && ft_load_u32(check) == ~crc && ft_load_u32(check + 4) == crc;
}

/* -- Whose it is */

/* What stands for the key that the node has now; zeros: none. */
static void owner(const ft_wire *wire, uint8_t *to)
{
    const uint8_t *key = wire ? ft_record_key(wire) : 0;
    uint8_t hash[FT_WIRE_HASH] = {0};
    if (key) {
        ft_object_hash(hash, 0, key, FT_WIRE_KEY);
        hash[0] |= 1;
    }
    memcpy(to, hash, OWNER_BYTES);
}

static bool ours(const ft_saver *v, const uint8_t *head)
{
    uint8_t now[OWNER_BYTES];
    owner(v->wire, now);
    return !v->wire || memcmp(head + OWNER, now, sizeof now) == 0;
}

/* Erases what holds something: an area is written from its start on, and power that failed in an erasure left some sector of it. */
static void clear(const ft_storage *storage, uint32_t area)
{
    uint8_t bytes[FT_STORAGE_UNIT], erased[FT_STORAGE_UNIT];
    uint32_t step = storage->bytes[area] / PROBES & ~(FT_STORAGE_UNIT - 1u);
    memset(erased, 0xFF, sizeof erased);
    for (uint32_t i = 0; i < PROBES; i++)
        if (storage->read(storage->ctx, area, i * step, bytes, sizeof bytes) != 0 || memcmp(bytes, erased, sizeof bytes) != 0) {
            storage->erase(storage->ctx, area);
            return;
        }
}

static void clear_samples(const ft_service *s)
{
    if (s->stored) /* an application's own are its own */
        clear(s->stored->storage, FT_AREA_SAMPLES);
}

/* -- Bringing a model up */

/* One part of the slot into the place that the service gives a task's object; *at moves behind it. */
static bool bring(ft_saver *v, ft_wire_task *task, uint32_t part, uint32_t *at)
{
    ft_wire_reply reply;
    ft_wire_object *object = &task->objects[task->object_count];
    bool have = false;
    memset(&reply, 0, sizeof reply);
    object->ref.kind = kinds[part];
    object->ref.length = length_of(v->head, part);
    memcpy(object->ref.hash, v->head + HASH, FT_WIRE_HASH);
    object->at = v->tasks.place(v->tasks.ctx, task, task->object_count++, &have, &reply);
    uint32_t from = *at;
    *at += ft_align8(object->ref.length);
    return object->at && read(v, v->newest, from, object->at, object->ref.length);
}

static bool do_task(ft_saver *v, const ft_wire_task *task)
{
    static const ft_wire_counts none;
    ft_wire_reply reply;
    memset(&reply, 0, sizeof reply);
    v->tasks.work(v->tasks.ctx, task, &none, 0, &reply);
    return reply.status == FT_OK;
}

static bool bring_up(ft_saver *v)
{
    ft_wire_task task;
    uint32_t at = FT_SAVER_HEAD;
    memset(&task, 0, sizeof task);
    task.kind = FT_DO_LOAD;
    task.parameter_bytes = v->head[PARAMETER_BYTES];
    memcpy(task.parameters, v->head + PARAMETERS, task.parameter_bytes);
    if (!bring(v, &task, MODEL, &at) || !do_task(v, &task))
        return false;
    v->loaded_only = !length_of(v->head, VALUES);
    if (v->loaded_only)
        return true;
    memset(&task, 0, sizeof task);
    task.kind = FT_DO_INSTALL;
    for (uint32_t part = MASKS; part < PARTS; part++)
        if (length_of(v->head, part) && !bring(v, &task, part, &at))
            return false;
    return do_task(v, &task);
}

static void drop_model(ft_service *s)
{
    s->node = 0;
    s->model_bytes = 0;
}

bool ft_saver_start(ft_saver *v, ft_service *service, ft_wire *wire, const ft_storage *storage)
{
    uint8_t head[FT_SAVER_HEAD];
    bool keep[FT_AREA_SAMPLES] = {false}, foreign = wire && !ft_wire_enrolled(wire);
    memset(v, 0, sizeof *v);
    v->service = service;
    v->wire = wire;
    v->tasks = ft_service_tasks(service);
    v->newest = FT_AREAS;
    if (!storage || !storage->bytes[FT_AREA_MODEL_0] || !storage->bytes[FT_AREA_MODEL_1]) {
        if (foreign)
            clear_samples(service);
        return false;
    }
    v->storage = storage;
    if (wire)
        wire->tasks = ft_saver_tasks(v);
    for (uint32_t area = FT_AREA_MODEL_0; area < FT_AREA_SAMPLES; area++) {
        if (!good(v, area, head, service->memory, service->samples_at))
            continue;
        keep[area] = ours(v, head);
        foreign |= !keep[area];
        if (keep[area]
            && (v->newest == FT_AREAS || (int32_t)(ft_load_u32(head + SEQUENCE) - ft_load_u32(v->head + SEQUENCE)) > 0)) {
            v->newest = area;
            memcpy(v->head, head, sizeof head);
        }
    }
    for (uint32_t area = FT_AREA_MODEL_0; foreign && area < FT_AREA_SAMPLES; area++)
        if (!keep[area])
            clear(storage, area);
    if (foreign)
        clear_samples(service);
    v->counted = v->newest != FT_AREAS;
    v->stored = v->counted && bring_up(v);
    if (!v->stored)
        drop_model(service);
    return v->stored;
}

/* -- Saving */

static void say(ft_saver *v, const char *text, uint32_t first, uint32_t second)
{
    ft_wire_reply words;
    if (!v->wire || v->said[0])
        return;
    ft_wire_fail(&words, FT_OK, text, first, second);
    v->said[ft_number_words(&words, v->said)] = 0;
    ft_wire_log(v->wire, v->said);
}

/* What of a model is saved, made one part after the other on the desk. */
typedef struct {
    ft_saver *v;
    uint8_t *desk;
    uint32_t room, area, at, crc;
    bool failed;
} pen;

static uint32_t masks_length(const ft_node *node)
{
    uint32_t length = 0, bytes;
    for (uint32_t layer = 0; layer < ft_layer_count(node); layer++)
        if (ft_get_mask(node, layer, 0, 0, &bytes) == FT_ERR_NOMEM)
            length += MASK_HEAD + bytes;
    return length;
}

static void put_masks(const ft_node *node, uint8_t *to)
{
    uint32_t bytes;
    for (uint32_t layer = 0; layer < ft_layer_count(node); layer++)
        if (ft_get_mask(node, layer, to + MASK_HEAD, 0xFFFFFFFFu, &bytes) == FT_OK) {
            ft_store_u32(to, layer | FT_MASK_BITMAP << 16);
            ft_store_u32(to + 4, bytes);
            to += MASK_HEAD + bytes;
        }
}

static void put_part(const ft_node *node, uint32_t part, uint8_t *to)
{
    float *numbers = (float *)(void *)(to + VECTOR_HEAD);
    memset(to, 0, VECTOR_HEAD); /* binary32 */
    if (part == MASKS)
        put_masks(node, to);
    else if (part == VALUES)
        ft_get_values(node, numbers, ft_value_count(node));
    else
        ft_get_stats(node, numbers, ft_stat_count(node));
}

static void write(pen *p, const uint8_t *bytes, uint32_t count)
{
    const ft_storage *storage = p->v->storage;
    p->crc = ft_blob_crc(p->crc, bytes, count);
    p->failed = p->failed || storage->write(storage->ctx, p->area, p->at, bytes, count) != 0;
    p->at += count;
}

static void write_part(pen *p, uint32_t part, uint32_t length)
{
    ft_service *s = p->v->service;
    uint8_t *from = part == MODEL ? s->memory : p->desk;
    if (part != MODEL && length)
        put_part(s->node, part, from);
    memset(from + length, 0, ft_align8(length) - length); /* of the model's: what lies before the arena */
    if (length)
        write(p, from, ft_align8(length));
}

static void measure(const ft_saver *v, uint8_t *head)
{
    const ft_node *node = v->service->node;
    uint32_t lengths[PARTS] = {v->service->model_bytes}, floats = ft_stat_count(node);
    if (!v->loaded_only) {
        lengths[MASKS] = masks_length(node);
        lengths[VALUES] = VECTOR_HEAD + 4 * ft_value_count(node);
        lengths[STATISTICS] = floats ? VECTOR_HEAD + 4 * floats : 0;
    }
    for (uint32_t part = 0; part < PARTS; part++)
        ft_store_u32(head + LENGTHS + 4 * part, lengths[part]);
}

static bool fits(const pen *p)
{
    const uint32_t *slots = p->v->storage->bytes;
    uint32_t most = slots[0] < slots[1] ? slots[0] : slots[1], all = FT_SAVER_HEAD + CHECK;
    bool desk_too_small = p->room < FT_SAVER_HEAD;
    for (uint32_t part = 0; part < PARTS; part++) {
        uint32_t length = ft_align8(length_of(p->v->head, part));
        all += length;
        desk_too_small |= part != MODEL && length > p->room;
    }
    if (!slot_bytes(p->v->head, most))
        say(p->v, "this model is not kept over a reset: it takes % bytes, a slot of storage has %", all, most);
    else if (desk_too_small)
        say(p->v, "this model is not kept over a reset: no memory is free to read it out", 0, 0);
    else
        return true;
    return false;
}

static bool written(pen *p)
{
    const ft_storage *storage = p->v->storage;
    uint8_t check[CHECK], head[FT_SAVER_HEAD];
    if (storage->erase(storage->ctx, p->area) != 0)
        return false;
    write(p, p->v->head, FT_SAVER_HEAD);
    for (uint32_t part = 0; part < PARTS; part++)
        write_part(p, part, length_of(p->v->head, part));
    ft_store_u32(check, ~p->crc);
    ft_store_u32(check + 4, p->crc);
    write(p, check, CHECK);
    return !p->failed && good(p->v, p->area, head, p->desk, p->room) && memcmp(head, p->v->head, sizeof head) == 0;
}

/* The service's model, in the slot that is not the newest. */
static void save(ft_saver *v, const ft_wire_task *task)
{
    ft_service *s = v->service;
    v->pending = false;
    if (!s->node || v->head[PARAMETER_BYTES] > FT_SAVER_PARAMETERS)
        return;
    uint32_t desk_at = ft_work_at(s, FT_DO_INSTALL);
    pen p = {v, s->memory + desk_at, s->samples_at > desk_at ? s->samples_at - desk_at : 0, v->newest == FT_AREA_MODEL_0, 0,
             0xFFFFFFFFu, false};
    measure(v, v->head);
    if (!fits(&p))
        return;
    memcpy(v->head, magic, sizeof magic);
    ft_store_u32(v->head + SEQUENCE, ft_load_u32(v->head + SEQUENCE) + 1);
    memcpy(v->head + RUN, task->run, RUN_BYTES);
    ft_store_u32(v->head + ROUND, task->round);
    owner(v->wire, v->head + OWNER);
    v->counted = true;
    v->saves++;
    if (written(&p)) {
        v->newest = p.area;
        v->stored = true;
    } else {
        say(v, "this model is not kept over a reset: the storage failed", 0, 0);
    }
}

static bool same_round(const ft_saver *v, const ft_wire_task *task)
{
    return v->counted && memcmp(v->head + RUN, task->run, RUN_BYTES) == 0 && ft_load_u32(v->head + ROUND) == task->round;
}

static void want(ft_saver *v, const ft_wire_task *task)
{
    v->pending = true;
    if (!same_round(v, task))
        save(v, task);
}

/* What waited for another round, before the memory that it is read out through is the task's. */
static void settle(ft_saver *v, const ft_wire_task *task)
{
    if (task->kind == FT_DO_LOAD) /* whatever it was, it is replaced */
        v->pending = false;
    if (v->pending && task->kind != FT_DO_PUT_DATA && !same_round(v, task))
        save(v, task);
}

static void loaded(ft_saver *v, const ft_wire_task *task)
{
    const uint8_t *hash = task->objects[0].ref.hash;
    v->loaded_only = true;
    if (v->stored && ours(v, v->head) && v->head[PARAMETER_BYTES] == task->parameter_bytes && memcmp(v->head + HASH, hash, FT_WIRE_HASH) == 0
        && memcmp(v->head + PARAMETERS, task->parameters, task->parameter_bytes) == 0)
        return; /* the slot has it, and perhaps values of a later round */
    v->stored = false;
    v->said[0] = 0;
    v->head[PARAMETER_BYTES] = task->parameter_bytes;
    if (task->parameter_bytes > FT_SAVER_PARAMETERS) { /* no LOAD of today's: such a model is not kept */
        v->pending = false;
        return;
    }
    memset(v->head + PARAMETERS, 0, FT_SAVER_PARAMETERS);
    memcpy(v->head + PARAMETERS, task->parameters, task->parameter_bytes);
    memcpy(v->head + HASH, hash, FT_WIRE_HASH);
    want(v, task);
}

/* -- Between the wire and the service */

/* A model that was brought up does not keep the next run's samples out; samples that find no room without it either do not end it. */
static uint8_t *place(void *ctx, const ft_wire_task *task, uint32_t i, bool *have, ft_wire_reply *reply)
{
    ft_saver *v = ctx;
    if (i == 0)
        settle(v, task);
    uint8_t *at = v->tasks.place(v->tasks.ctx, task, i, have, reply);
    uint32_t length = task->objects[i].ref.length, room = v->service->samples_at;
    if (at || task->kind != FT_DO_PUT_DATA || reply->status != FT_ERR_NOMEM || !v->service->model_bytes
        || length > room || ft_align8(length) + FT_SAMPLES_TAIL > room)
        return at;
    drop_model(v->service);
    memset(reply, 0, sizeof *reply);
    return v->tasks.place(v->tasks.ctx, task, i, have, reply);
}

static void work(void *ctx, const ft_wire_task *task, const ft_wire_counts *counts, uint32_t boots, ft_wire_reply *reply)
{
    ft_saver *v = ctx;
    if (!task->object_count)
        settle(v, task);
    v->tasks.work(v->tasks.ctx, task, counts, boots, reply);
    if (task->kind == FT_DO_TRAIN) /* the values are the node's own now */
        v->pending = false;
    if (reply->status)
        return;
    if (task->kind == FT_DO_LOAD)
        loaded(v, task);
    if (task->kind == FT_DO_INSTALL) {
        v->loaded_only = false;
        want(v, task);
    }
}

static void room(void *ctx, uint32_t *arena_bytes, uint32_t *free_bytes)
{
    const ft_saver *v = ctx;
    v->tasks.room(v->tasks.ctx, arena_bytes, free_bytes);
}

ft_wire_tasks ft_saver_tasks(ft_saver *v) { return v->storage ? (ft_wire_tasks){v, place, work, room} : v->tasks; }
