/* A whole node: a raw line, the frames of a session, tasks with their objects, the values and masks of a model.
 *
 * FUZZ_MODEL names a file with the model that the node runs. It has samples and model before each input: loaded once, then copied. */
#include <stdio.h>
#include <string.h>

#include "../../../firmware/src/blob.h"
#include "../../../firmware/src/wire/cobs.h"
#include "../../../firmware/src/wire/wire.h"
#include "fedtiny_wire.h"
#include "fuzz.h"

enum { MEMORY = 48 << 10, SAMPLES = 12, INPUT = 36, MOST_MODEL = 16 << 10 };
enum { LOAD = 3, INSTALL = 4, TRAIN = 7, SCORE = 8, KINDS = 11 };

static struct {
    uint32_t clock;
    ft_wire wire;
    ft_service service;
    ft_wire_tasks tasks; /* the service's own */
    uint64_t memory[MEMORY / 8];
} all, ready;

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
    ft_service_start(&all.service, all.memory, MEMORY, 0);
    all.tasks = ft_service_tasks(&all.service);
    HOLDS(ft_wire_start(&all.wire, &port, &facts, (ft_wire_tasks){all.tasks.ctx, place, work, room}) == FT_OK);
}

/* Runs one task as the wire would. Its objects (u8 kind, u16 bytes, the bytes) lie where the service wants them, or, where the task
 * only reads them, in memory that ends where they end. */
static void run(uint8_t kind, const uint8_t *parameters, uint8_t parameter_bytes, fuzz_input in)
{
    static ft_wire_task t;
    static const ft_wire_counts counts;
    uint8_t *pieces[FT_WIRE_OBJECTS] = {0};
    ft_wire_reply reply = {0};
    memset(&t, 0, sizeof t);
    t.kind = kind;
    t.parameter_bytes = parameter_bytes;
    if (parameter_bytes)
        memcpy(t.parameters, parameters, parameter_bytes);
    for (uint32_t i = 0; i < FT_WIRE_OBJECTS && in.left >= 3; i++) {
        bool have = false;
        t.objects[i].ref.kind = (uint8_t)(1 + fuzz_byte(&in) % 10);
        uint32_t length = fuzz_number(&in, 2);
        t.objects[i].ref.length = length = length <= in.left ? length : (uint32_t)in.left;
        t.objects[i].at = place(&all.service, &t, i, &have, &reply);
        if (!t.objects[i].at)
            break;
        size_t count;
        uint8_t *piece = pieces[i] = fuzz_piece(&in, length, &count);
        if (kind > LOAD)
            t.objects[i].at = piece;
        else
            memcpy(t.objects[i].at, piece, count);
        t.object_count++;
    }
    if (!reply.status)
        work(&all.service, &t, &counts, 1, &reply);
    for (uint32_t i = 0; i < FT_WIRE_OBJECTS; i++)
        free(pieces[i]);
}

/* A node with samples and a model. */
static void prepare(void)
{
    static const uint8_t settings[] = {0x8B, 4, 0, 8, 0, 15, 0, 0, 1, 0, 0, 0}; /* micro-batch 4, top-K of 8, all modes */
    static const uint8_t shard[] = {0x85, 0, SAMPLES, SAMPLES, 4, 0x18, INPUT};
    static uint8_t object[3 + MOST_MODEL];
    if (ready.tasks.ctx) {
        memcpy(&all, &ready, sizeof all);
        return;
    }
    start();
    uint32_t bytes = 4 + SAMPLES * (4 * INPUT + 2);
    object[0] = 7;
    object[1] = (uint8_t)bytes;
    object[2] = (uint8_t)(bytes >> 8);
    run(2, shard, sizeof shard, (fuzz_input){object, 3 + bytes});
    const char *path = getenv("FUZZ_MODEL");
    FILE *file = path ? fopen(path, "rb") : 0;
    if (!file) {
        fprintf(stderr, "FUZZ_MODEL has to name the model's file: model.ftm among the seeds\n");
        exit(2);
    }
    bytes = (uint32_t)fread(object + 3, 1, MOST_MODEL, file);
    fclose(file);
    object[0] = 0;
    object[1] = (uint8_t)bytes;
    object[2] = (uint8_t)(bytes >> 8);
    run(LOAD, settings, sizeof settings, (fuzz_input){object, 3 + bytes});
    HOLDS(ft_service_node(&all.service) != 0);
    memcpy(&ready, &all, sizeof all);
}

/* u8 bytes at a time; what a line brings. */
void fuzz_line(fuzz_input in)
{
    size_t piece = 1u + fuzz_byte(&in);
    start();
    for (; in.left; in.at += piece, in.left -= piece) {
        piece = piece < in.left ? piece : in.left;
        ft_wire_feed(&all.wire, in.at, piece);
        ft_wire_poll(&all.wire);
    }
}

/* A plain session without a handshake: records of u8 type, u16 bytes, the payload. */
void fuzz_session(fuzz_input in)
{
    static uint8_t frame[FT_WIRE_FRAME], line[FT_WIRE_STUFFED];
    prepare();
    all.wire.session = (ft_wire_session){.running = true, .open = true, .fresh = true, .number = 1, .max_payload = 256};
    for (uint32_t counter = 0; in.left >= 3; counter++) {
        const uint8_t head[] = {0x11, fuzz_byte(&in), 1, 0, (uint8_t)counter, (uint8_t)(counter >> 8), 0, 0};
        uint32_t count = fuzz_number(&in, 2);
        count = count <= in.left ? count : (uint32_t)in.left;
        count = count <= FT_WIRE_PAYLOAD ? count : FT_WIRE_PAYLOAD;
        memcpy(frame, head, sizeof head);
        memcpy(frame + sizeof head, in.at, count);
        in.at += count;
        in.left -= count;
        uint32_t end = (uint32_t)sizeof head + count, crc = ~ft_blob_crc(0xFFFFFFFFu, frame, end);
        for (int i = 0; i < 4; i++)
            frame[end++] = (uint8_t)(crc >> 8 * i);
        end = ft_cobs_encode(line, frame, end);
        line[end++] = 0;
        ft_wire_feed(&all.wire, line, end);
        ft_wire_poll(&all.wire);
        ft_wire_poll(&all.wire);
    }
}

/* The objects of an install: masks, values, statistics of the node's model. */
void fuzz_values(fuzz_input in)
{
    prepare();
    run(INSTALL, 0, 0, in);
}

/* u8 kind, u8 bytes of the parameters, those; objects. */
void fuzz_task(fuzz_input in)
{
    uint8_t kind = (uint8_t)(1 + fuzz_byte(&in) % KINDS), count = fuzz_byte(&in) % 64;
    const uint8_t *parameters = in.at;
    count = count < in.left ? count : (uint8_t)in.left;
    in.at += count;
    in.left -= count;
    prepare();
    run(kind, parameters, count, in);
}
