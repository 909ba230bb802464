/* Decoders that keep no state: messages, lists of numbers, COBS, masks, samples, stored records, topics. */
#include <string.h>

#include "../../../firmware/port/mqtt/topics.h"
#include "../../../firmware/port/record.h"
#include "../../../firmware/src/blob.h"
#include "../../../firmware/src/mask.h"
#include "../../../firmware/src/wire/cobs.h"
#include "../../../firmware/src/wire/service.h"
#include "../../../firmware/src/wire/wire.h"
#include "fuzz.h"

uint32_t codec_again(uint32_t kind, const uint8_t *bytes, uint32_t count, uint8_t *out);

enum { MESSAGES = 11, GROWTH = 512 };

/* u8 which; the message: it is refused, or these are the bytes that it is written as. */
void fuzz_message(fuzz_input in)
{
    static uint8_t out[FUZZ_MOST + GROWTH];
    uint8_t kind = fuzz_byte(&in) % MESSAGES;
    uint32_t count = codec_again(kind, in.at, (uint32_t)in.left, out);
    HOLDS(!count || (count == in.left && memcmp(out, in.at, count) == 0));
}

/* u8 form; CBOR: all numbers at once by the form of a task, then one by one. */
void fuzz_number_list(fuzz_input in)
{
    static const char *const forms[] = {"i", "ii", "iiiii", "iifffi", "iiiiiiiiiii", ""};
    static ft_wire_task task;
    uint32_t out[16], at = 0, before, value, found = 0;
    float real;
    const char *form = forms[fuzz_byte(&in) % (sizeof forms / sizeof *forms)];
    task.parameter_bytes = (uint8_t)(in.left < FT_WIRE_NUMBERS ? in.left : FT_WIRE_NUMBERS);
    memcpy(task.parameters, in.at, task.parameter_bytes);
    bool all = ft_wire_numbers(&task, form, out);
    for (before = at; ft_wire_integer(&task, &at, &value) || ft_wire_float(&task, &at, &real); before = at, found++)
        HOLDS(at > before && at <= task.parameter_bytes);
    HOLDS(!all || (found == strlen(form) && ft_wire_no_more(&task, at)));
}

/* A stuffed frame of any bytes; what comes of it is stuffed and found again. */
void fuzz_cobs(fuzz_input in)
{
    size_t count;
    uint8_t *bytes = fuzz_piece(&in, FUZZ_MOST, &count);
    uint32_t plain = ft_cobs_decode(bytes, (uint32_t)count), most = plain + ft_cobs_overhead(plain);
    HOLDS(plain <= count);
    if (plain) {
        uint8_t *again = malloc(most);
        HOLDS(again != 0);
        uint32_t coded = ft_cobs_encode(again, bytes, plain);
        HOLDS(coded <= most && !memchr(again, 0, coded));
        HOLDS(ft_cobs_decode(again, coded) == plain && memcmp(again, bytes, plain) == 0);
        free(again);
    }
    free(bytes);
}

/* u16 encoding, u24 elements; the mask: what was counted is what is read, ascending and inside. */
void fuzz_mask(fuzz_input in)
{
    uint32_t encoding = fuzz_number(&in, 2), elements = fuzz_number(&in, 3), live, index, next = 0, read = 0;
    ft_mask mask = ft_mask_open(encoding, in.at, (uint32_t)in.left, elements);
    if (!ft_mask_check(mask, &live))
        return;
    for (; ft_mask_next(&mask, &index); next = index + 1, read++)
        HOLDS(index >= next && index < elements);
    HOLDS(read == live);
}

/* u8 labels, u32 numbers a sample; an object of samples, all of which are read. */
void fuzz_samples(fuzz_input in)
{
    ft_shard shard;
    bool labels = fuzz_byte(&in) & 1;
    uint32_t floats = fuzz_number(&in, 4);
    if (!ft_shard_open(&shard, in.at, (uint32_t)in.left, floats, labels) || !ft_shard_check(&shard, floats) || !shard.count)
        return;
    HOLDS(floats <= in.left);
    float *x = malloc(floats * sizeof *x);
    HOLDS(x != 0);
    for (uint32_t i = 0; i < shard.count; i++)
        ft_shard_read(&shard, i, floats, x);
    free(x);
}

/* -- What a port keeps: two halves of slots (port/record.h), and the wire's record in them. */

enum { SLOTS = 2, SEQUENCE = 4, SLOT_CRC = RECORD_SLOT - 4 };

static struct {
    uint8_t halves[2][SLOTS][RECORD_SLOT];
    const uint8_t *record; /* FT_WIRE_RECORD bytes */
} kept;

static int read_slot(void *ctx, uint32_t half, uint32_t slot, uint8_t *to)
{
    (void)ctx;
    HOLDS(half < 2 && slot < SLOTS);
    memcpy(to, kept.halves[half][slot], RECORD_SLOT);
    return 0;
}

static int write_slot(void *ctx, uint32_t half, uint32_t slot, const uint8_t *from)
{
    (void)ctx;
    HOLDS(half < 2 && slot < SLOTS);
    for (uint32_t i = 0; i < RECORD_SLOT; i++)
        HOLDS(kept.halves[half][slot][i] == 0xFF);
    memcpy(kept.halves[half][slot], from, RECORD_SLOT);
    return 0;
}

static int erase_half(void *ctx, uint32_t half)
{
    (void)ctx;
    HOLDS(half < 2);
    memset(kept.halves[half], 0xFF, sizeof kept.halves[half]);
    return 0;
}

static int load_record(void *ctx, uint8_t record[FT_WIRE_RECORD])
{
    (void)ctx;
    memcpy(record, kept.record, FT_WIRE_RECORD);
    return 0;
}

static int store_record(void *ctx, const uint8_t record[FT_WIRE_RECORD])
{
    (void)ctx;
    return record[0] != 1;
}

static uint32_t no_time(void *ctx)
{
    (void)ctx;
    return 0;
}

static void start_from(const uint8_t *record)
{
    static const ft_wire_port port = {.now_ms = no_time, .load = load_record, .store = store_record};
    static const ft_wire_facts facts = {.device = "n1", .board = "fuzz"};
    static const ft_wire_tasks none;
    static ft_wire wire;
    kept.record = record;
    HOLDS(ft_wire_start(&wire, &port, &facts, none) == FT_OK);
    size_t id = strlen(ft_wire_device(&wire));
    HOLDS(id <= FT_WIRE_ID && (ft_wire_enrolled(&wire) || id == 2));
}

/* u8 how: bit 0, checksums are put right; u8 capacity; u8 bytes to save; u8[112] those; the slots. */
void fuzz_record(fuzz_input in)
{
    const record_storage storage = {0, SLOTS, read_slot, write_slot, erase_half};
    uint8_t how = fuzz_byte(&in), from[RECORD_BYTES] = {0}, back[RECORD_BYTES];
    uint32_t capacity = fuzz_byte(&in) % (RECORD_BYTES + 1), bytes = fuzz_byte(&in) % (RECORD_BYTES + 2);
    for (uint32_t i = 0; i < RECORD_BYTES; i++)
        from[i] = fuzz_byte(&in);
    memset(kept.halves, 0xFF, sizeof kept.halves);
    memcpy(kept.halves, in.at, in.left < sizeof kept.halves ? in.left : sizeof kept.halves);
    bool last = false; /* the sequence of the 2^32nd save: flash wears out before */
    for (uint32_t i = 0; i < 2 * SLOTS; i++) {
        uint8_t *slot = kept.halves[i / SLOTS][i % SLOTS];
        if (slot[0] == 0xFF) /* no magic */
            continue;
        uint32_t crc = how & 1 ? ~ft_blob_crc(0xFFFFFFFFu, slot, SLOT_CRC) : 0;
        for (uint32_t k = 0; how & 1 && k < 4; k++)
            slot[SLOT_CRC + k] = (uint8_t)(crc >> 8 * k);
        last |= memcmp(slot + SEQUENCE, "\xFF\xFF\xFF\xFF", 4) == 0;
    }
    uint8_t *to = malloc(capacity ? capacity : 1);
    HOLDS(to != 0);
    uint32_t found = record_load(&storage, to, capacity);
    HOLDS(found <= capacity);
    if (found == FT_WIRE_RECORD)
        start_from(to);
    free(to);
    bool saved = record_save(&storage, from, bytes) == 0;
    HOLDS(last || saved == (bytes != 0 && bytes <= RECORD_BYTES));
    if (saved && !last)
        HOLDS(record_load(&storage, back, sizeof back) == bytes && memcmp(back, from, bytes) == 0);
}

/* A fleet's name, a device's, each up to its zero; a frame. */
void fuzz_topic(fuzz_input in)
{
    char topic[TOPIC_BYTES];
    char *names[2];
    for (int i = 0; i < 2; i++) {
        const uint8_t *zero = memchr(in.at, 0, in.left);
        size_t count = zero ? (size_t)(zero - in.at) : in.left;
        names[i] = calloc(count + 1, 1);
        HOLDS(names[i] != 0);
        memcpy(names[i], in.at, count);
        in.at += count + (zero != 0);
        in.left -= count + (zero != 0);
    }
    topic_message message = topic_of_frame(in.at, in.left);
    HOLDS(message.payload >= in.at && message.payload + message.bytes <= in.at + in.left);
    if (topic_write(topic, names[0], names[1], message.what) == 0) {
        size_t slashes = 0;
        HOLDS(memchr(topic, 0, sizeof topic) && !strpbrk(topic, "+#"));
        for (const char *at = topic; *at; at++)
            slashes += *at == '/';
        HOLDS(slashes == 4);
    }
    free(names[0]);
    free(names[1]);
}
