/* One input against every decoder of the C node: messages, a raw line, the frames of a session, tasks with their objects.
 *
 * The first byte says which. FUZZ_MODEL names a file with a model that the node runs; without it tasks end early. What must hold
 * besides the sanitizers' rules is checked with abort(). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../firmware/src/blob.h"
#include "../../../firmware/src/wire/cobs.h"
#include "../../../firmware/src/wire/wire.h"
#include "fedtiny_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
uint32_t codec_again(uint32_t kind, const uint8_t *bytes, uint32_t count, uint8_t *out);

enum { MESSAGES = 11, MEMORY = 48 << 10, SAMPLES = 12, INPUT = 36, MOST_MODEL = 16 << 10, SLACK = 512, MODES = 4 };
enum { LOAD = 3, TRAIN = 7, SCORE = 8 };

static struct {
    uint8_t model[MOST_MODEL];
    uint32_t model_bytes;
    uint32_t clock;
    ft_wire wire;
    ft_service service;
    ft_wire_tasks tasks; /* the service's own */
    uint64_t memory[MEMORY / 8];
} all;

#define HOLDS(what) ((what) ? (void)0 : abort())

static uint32_t now_ms(void *ctx)
{
    (void)ctx;
    return all.clock += 20;
}

static size_t put(void *ctx, const uint8_t *bytes, size_t count)
{
    (void)ctx;
    (void)bytes;
    return count > 3 ? count / 2 : count;
}

static int load(void *ctx, uint8_t record[FT_WIRE_RECORD])
{
    static const uint8_t head[8] = {1, 1, 2};
    (void)ctx;
    memset(record, 7, FT_WIRE_RECORD);
    memcpy(record, head, sizeof head);
    memcpy(record + 40, "n1", 3);
    return 0;
}

static int store(void *ctx, const uint8_t record[FT_WIRE_RECORD])
{
    (void)ctx;
    (void)record;
    return 0;
}

static bool inside(const void *at, size_t bytes)
{
    const uint8_t *p = at, *memory = (const uint8_t *)all.memory;
    return p >= memory && p <= memory + MEMORY && bytes <= (size_t)(memory + MEMORY - p);
}

static uint8_t *place(void *ctx, const ft_wire_task *task, uint32_t i, bool *have, ft_wire_reply *reply)
{
    uint8_t *at = all.tasks.place(ctx, task, i, have, reply);
    HOLDS(!at || inside(at, task->objects[i].ref.length));
    HOLDS(at || reply->status);
    return at;
}

/* Only what would take all day is left out. */
static void work(void *ctx, const ft_wire_task *task, const ft_wire_counts *counts, uint32_t boots, ft_wire_reply *reply)
{
    uint32_t at = 0, first;
    if ((task->kind == TRAIN || task->kind == SCORE) && ft_wire_integer(task, &at, &first) && first > 2)
        return;
    all.tasks.work(ctx, task, counts, boots, reply);
    HOLDS(reply->object_count <= FT_WIRE_OBJECTS && reply->result_bytes <= FT_WIRE_RESULTS && reply->status <= FT_ERR_DATA);
    for (uint32_t i = 0; i < reply->object_count; i++) {
        const ft_wire_source *source = &reply->objects[i];
        HOLDS(source->form == FT_WIRE_BYTES ? inside(source->at, source->count) : inside(source->at, 4ull * source->count));
    }
    HOLDS(!reply->status || (!reply->object_count && !reply->result_bytes && reply->problem));
}

static void room(void *ctx, uint32_t *arena_bytes, uint32_t *free_bytes) { all.tasks.room(ctx, arena_bytes, free_bytes); }

static void start(void)
{
    static const ft_wire_port port = {0, now_ms, put, 0, load, store};
    static const ft_wire_facts facts = {.device = "n1", .board = "fuzz", .plain = true, .exchange = &ft_wire_x25519};
    const char *path = getenv("FUZZ_MODEL");
    FILE *file = path && !all.model_bytes ? fopen(path, "rb") : 0;
    if (file) {
        all.model_bytes = (uint32_t)fread(all.model, 1, MOST_MODEL, file);
        fclose(file);
    }
    ft_service_start(&all.service, all.memory, MEMORY, 0);
    all.tasks = ft_service_tasks(&all.service);
    HOLDS(ft_wire_start(&all.wire, &port, &facts, (ft_wire_tasks){all.tasks.ctx, place, work, room}) == FT_OK);
}

/* Runs one task as the wire would, its objects put where the service wants them. */
static void task(const uint8_t *parameters, uint8_t parameter_bytes, uint8_t kind, const uint8_t *data, size_t size)
{
    static ft_wire_task t;
    static const ft_wire_counts counts;
    ft_wire_reply reply = {0};
    memset(&t, 0, sizeof t);
    t.kind = kind;
    t.parameter_bytes = parameter_bytes;
    memcpy(t.parameters, parameters, parameter_bytes);
    for (uint32_t i = 0; i < FT_WIRE_OBJECTS && size >= 3; i++) {
        bool have = false;
        uint32_t length = data[1] | (uint32_t)data[2] << 8;
        t.objects[i].ref.kind = (uint8_t)(1 + data[0] % 10);
        t.objects[i].ref.length = length = length <= size - 3 ? length : (uint32_t)(size - 3);
        t.objects[i].at = place(&all.service, &t, i, &have, &reply);
        if (!t.objects[i].at)
            return;
        memcpy(t.objects[i].at, data + 3, length);
        t.object_count++;
        data += 3 + length;
        size -= 3 + length;
    }
    work(&all.service, &t, &counts, 1, &reply);
}

static void prepare(void)
{
    static const uint8_t settings[] = {0x8B, 4, 0, 8, 0, 15, 0, 0, 1, 0, 0, 0}; /* micro-batch 4, top-K of 8, all modes */
    static const uint8_t shard[] = {0x85, 0, SAMPLES, SAMPLES, 4, 0x18, INPUT};
    static uint8_t object[3 + MOST_MODEL];
    uint32_t bytes = 4 + SAMPLES * (4 * INPUT + 2);
    memset(object, 0, sizeof object);
    object[0] = 7;
    object[1] = (uint8_t)bytes;
    object[2] = (uint8_t)(bytes >> 8);
    task(shard, sizeof shard, 2, object, 3 + bytes);
    if (!all.model_bytes)
        return;
    object[0] = 0;
    object[1] = (uint8_t)all.model_bytes;
    object[2] = (uint8_t)(all.model_bytes >> 8);
    memcpy(object + 3, all.model, all.model_bytes);
    task(settings, sizeof settings, LOAD, object, 3 + all.model_bytes);
    HOLDS(ft_service_node(&all.service) != 0);
}

/* A plain session without a handshake: records of u8 type, u16 bytes, the payload. */
static void session(const uint8_t *data, size_t size)
{
    static uint8_t frame[FT_WIRE_FRAME], line[FT_WIRE_STUFFED];
    all.wire.session = (ft_wire_session){.running = true, .open = true, .fresh = true, .number = 1, .max_payload = 256};
    for (uint32_t counter = 0; size >= 3; counter++) {
        uint32_t count = data[1] | (uint32_t)data[2] << 8;
        const uint8_t head[] = {0x11, data[0], 1, 0, (uint8_t)counter, (uint8_t)(counter >> 8), 0, 0};
        count = count <= size - 3 ? count : (uint32_t)(size - 3);
        count = count <= FT_WIRE_PAYLOAD ? count : FT_WIRE_PAYLOAD;
        memcpy(frame, head, sizeof head);
        memcpy(frame + sizeof head, data + 3, count);
        uint32_t end = (uint32_t)sizeof head + count, crc = ~ft_blob_crc(0xFFFFFFFFu, frame, end);
        for (int i = 0; i < 4; i++)
            frame[end++] = (uint8_t)(crc >> 8 * i);
        end = ft_cobs_encode(line, frame, end);
        line[end++] = 0;
        ft_wire_feed(&all.wire, line, end);
        ft_wire_poll(&all.wire);
        ft_wire_poll(&all.wire);
        data += 3 + count;
        size -= 3 + count;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t out[(1 << 14) + SLACK];
    if (size < 4 || size > 1 << 14)
        return 0;
    uint8_t mode = data[0] % MODES;
    if (mode == 0) {
        uint32_t count = codec_again(data[1] % MESSAGES, data + 2, (uint32_t)size - 2, out);
        HOLDS(!count || (count == size - 2 && memcmp(out, data + 2, count) == 0));
        return 0;
    }
    start();
    if (mode == 1) {
        size_t piece = 1 + data[1];
        for (data += 2, size -= 2; size; data += piece, size -= piece) {
            piece = piece < size ? piece : size;
            ft_wire_feed(&all.wire, data, piece);
            ft_wire_poll(&all.wire);
        }
        return 0;
    }
    prepare();
    if (mode == 2) {
        session(data + 1, size - 1);
        return 0;
    }
    uint8_t parameters = data[2] % 64 < size - 3 ? data[2] % 64 : (uint8_t)(size - 3);
    task(data + 3, parameters, (uint8_t)(1 + data[1] % 11), data + 3 + parameters, size - 3 - parameters);
    return 0;
}
