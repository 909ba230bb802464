/* A node's end without the core behind it: frames with their tags, handshakes, tasks and the transfer of their objects. */
#include <string.h>

#include "../../../firmware/src/blob.h"
#include "../../../firmware/src/bytes.h"
#include "../../../firmware/src/wire/blake2b.h"
#include "../../../firmware/src/wire/wire.h"
#include "fuzz.h"
#include "monocypher.h"

enum { KEY = 7, MAC = 16, HASH = 32, PLACES = 64, LONGEST = 4096, KEPT = 32 };

static struct {
    ft_wire wire;
    uint32_t clock;
    uint8_t *places[PLACES]; /* where objects were put, one piece of memory for each */
    uint32_t placed;
    float answer[KEPT];
} end;

static uint32_t now_ms(void *ctx)
{
    (void)ctx;
    return end.clock += 20;
}

static int load(void *ctx, uint8_t record[FT_WIRE_RECORD])
{
    static const uint8_t head[8] = {1, 1, 2};
    (void)ctx;
    memset(record, KEY, FT_WIRE_RECORD);
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

static uint8_t *place(void *ctx, const ft_wire_task *task, uint32_t i, bool *have, ft_wire_reply *reply)
{
    uint32_t length = task->objects[i].ref.length;
    (void)ctx;
    if (length > LONGEST || end.placed == PLACES) {
        ft_wire_fail(reply, FT_ERR_NOMEM, "% bytes wanted, % free", length, LONGEST);
        return 0;
    }
    *have = task->kind == 3 && length % 2; /* some are there already */
    uint8_t *at = malloc(length ? length : 1);
    HOLDS(at != 0);
    return end.places[end.placed++] = at;
}

/* Gives back what came first, and floats in both widths. */
static void work(void *ctx, const ft_wire_task *task, const ft_wire_counts *counts, uint32_t boots, ft_wire_reply *reply)
{
    (void)ctx;
    (void)counts;
    ft_wire_add_integer(reply, boots);
    for (uint8_t form = FT_WIRE_BYTES; form <= FT_WIRE_F16; form++) {
        ft_wire_source *source = &reply->objects[reply->object_count++];
        bool bytes = form == FT_WIRE_BYTES && task->object_count && task->objects[0].block_bytes;
        *source = (ft_wire_source){{1, {0}, 0}, form, bytes ? (void *)task->objects[0].at : end.answer,
                                   bytes ? task->objects[0].ref.length : KEPT};
    }
}

static void room(void *ctx, uint32_t *arena_bytes, uint32_t *free_bytes)
{
    (void)ctx;
    *arena_bytes = *free_bytes = LONGEST;
}

static void start(void)
{
    static const ft_wire_port port = {.now_ms = now_ms, .load = load, .store = store};
    static const ft_wire_facts facts = {.device = "n1", .board = "fuzz", .plain = true};
    end.placed = end.clock = 0;
    HOLDS(ft_wire_start(&end.wire, &port, &facts, (ft_wire_tasks){0, place, work, room}) == FT_OK);
}

/* -- Frames */

/* Encrypts the payload and writes the tag, by the library's own AEAD, which a node does not use. */
static void seal(uint8_t *frame, uint32_t count, const uint8_t *key)
{
    crypto_aead_ctx ctx;
    uint8_t nonce[12] = {0}, *payload = frame + FT_FRAME_HEADER;
    memcpy(nonce, frame, FT_FRAME_HEADER);
    crypto_aead_init_ietf(&ctx, key, nonce);
    crypto_aead_write(&ctx, payload, payload + count, frame, FT_FRAME_HEADER, payload, count);
}

/* u8 how: bit 0, the session is plain; 1, the tail is put right; 2, then a bit is turned round; u8 highest counter before; u16
 * which bit; header and payload, or a whole frame. */
void fuzz_frame(fuzz_input in)
{
    static uint8_t keys[2 * FT_WIRE_KEY] = {KEY};
    uint8_t how = fuzz_byte(&in), highest = fuzz_byte(&in);
    uint32_t turned = fuzz_number(&in, 2);
    size_t count = in.left < FT_WIRE_FRAME - FT_FRAME_TAG ? in.left : FT_WIRE_FRAME - FT_FRAME_TAG;
    if (count < FT_FRAME_HEADER)
        return;
    const uint8_t *given = in.at;
    uint32_t tail = !(how & 2) ? 0 : given[0] & 2 ? FT_FRAME_TAG : FT_FRAME_CRC, all = (uint32_t)count + tail;
    uint8_t *frame = malloc(all), *again = malloc(all);
    HOLDS(frame && again);
    memcpy(frame, given, count);
    end.wire.session = (ft_wire_session){.running = true, .open = how & 1, .heard = highest != 0, .number = 1, .max_payload = 256,
                                         .highest = highest};
    memcpy(end.wire.session.keys, keys, sizeof keys);
    if (tail == FT_FRAME_TAG)
        seal(frame, (uint32_t)count - FT_FRAME_HEADER, keys + FT_WIRE_KEY);
    else if (tail)
        ft_store_u32(frame + count, ~ft_blob_crc(0xFFFFFFFFu, frame, (uint32_t)count));
    if (how & 4)
        frame[turned / 8 % all] ^= (uint8_t)(1u << turned % 8);
    memcpy(again, frame, all);
    ft_frame found, second;
    if (ft_frame_open(&end.wire, frame, all, &found)) {
        HOLDS(!(tail && how & 4)); /* CRC and tag find one bit */
        HOLDS(found.payload >= frame && found.payload + found.count <= frame + all);
        HOLDS(!tail || (found.count == count - FT_FRAME_HEADER
                        && memcmp(found.payload, given + FT_FRAME_HEADER, found.count) == 0 && found.type == given[1]));
        bool inside = again[2] | again[3];
        HOLDS(ft_frame_open(&end.wire, again, all, &second) == !inside); /* each counter once */
    }
    free(frame);
    free(again);
}

/* -- Handshakes */

/* The MAC of a WELCOME as PROTOCOL.md has it. */
static void welcome_mac(uint8_t out[MAC], const uint8_t *message, uint32_t count)
{
    ft_blake2b b;
    uint8_t key[HASH];
    ft_blake2b_start(&b, HASH, ft_record_key(&end.wire), FT_WIRE_KEY);
    ft_blake2b_add(&b, "fedtiny handshake 1", 19);
    ft_blake2b_end(&b, key);
    ft_blake2b_start(&b, MAC, key, HASH);
    ft_blake2b_add(&b, "welcome", 7);
    ft_blake2b_add(&b, end.wire.hands.t2, HASH);
    ft_blake2b_add(&b, message, count);
    ft_blake2b_end(&b, out);
}

/* Writes the answers that wait, as wire.c does; returns which those were. */
static uint8_t answers(void)
{
    uint8_t *out = ft_frame_payload(&end.wire), wants = end.wire.wants;
    uint32_t most = 0, count;
    if (wants & FT_WANTS_HELLO)
        most = ft_handshake_hello(&end.wire, out);
    if (wants & FT_WANTS_REFUSE && (count = ft_handshake_refuse(&end.wire, out)) > most)
        most = count;
    if (wants & FT_WANTS_ENROLLED && (count = ft_handshake_enrolled(&end.wire, out)) > most)
        most = count;
    HOLDS(most <= 256);
    end.wire.wants = 0;
    return wants;
}

/* u8 how: bit 0, the node has no key; then u8 type, bit 7: a WELCOME gets its MAC; u16 bytes; the payload, again and again. */
void fuzz_handshake(fuzz_input in)
{
    start();
    if (fuzz_byte(&in) & 1)
        HOLDS(ft_record_forget(&end.wire));
    for (int n = 0; in.left && n < 16; n++) {
        uint8_t type = fuzz_byte(&in), *payload = end.wire.received; /* a HELLO is made behind an INVITE */
        bool used = end.wire.hands.used;
        size_t count = fuzz_number(&in, 2);
        count = count < in.left ? count : in.left;
        count = count < FT_WIRE_PAYLOAD ? count : FT_WIRE_PAYLOAD;
        memcpy(payload, in.at, count);
        in.at += count;
        in.left -= count;
        switch (type & 127) {
        case FT_FRAME_INVITE:
            ft_handshake_invite(&end.wire, payload, (uint32_t)count);
            HOLDS(!(end.wire.wants & FT_WANTS_HELLO) || end.wire.hands.offered);
            break;
        case FT_FRAME_WELCOME:
            if (type & 128 && ft_wire_enrolled(&end.wire)) {
                welcome_mac(payload + count, payload, (uint32_t)count);
                count += MAC;
            }
            ft_handshake_welcome(&end.wire, payload, (uint32_t)count);
            HOLDS(!end.wire.session.running || (end.wire.session.number && end.wire.session.max_payload >= 64
                                                && end.wire.session.max_payload <= FT_WIRE_PAYLOAD));
            /* without the MAC no session begins but a plain one */
            HOLDS(type & 128 || !(end.wire.wants & FT_WANTS_READY) || end.wire.session.open || used);
            break;
        default:
            ft_handshake_enrol(&end.wire, payload, (uint32_t)count);
        }
        answers();
    }
}

/* -- Tasks and their objects */

/* All that is due, as wire.c sends it. */
static void due(void)
{
    ft_wire *wire = &end.wire;
    uint8_t *out = ft_frame_payload(wire);
    uint32_t most = wire->session.max_payload, hashes = 0;
    if (wire->state == FT_TASK_COMPLETE)
        ft_task_do(wire);
    if (wire->wants & FT_WANTS_REPLY)
        HOLDS(ft_task_reply(wire, out) <= FT_WIRE_PAYLOAD);
    if (wire->wants & FT_WANTS_ACK)
        HOLDS(ft_task_ack(wire, out) <= most);
    wire->wants = 0;
    HOLDS(ft_fetch_request(wire, out) <= most);
    for (; !ft_queue_empty(wire); hashes++)
        HOLDS(ft_queue_data(wire, out) <= most && hashes < FT_WIRE_QUEUE);
    HOLDS(wire->fetch.flight <= FT_WIRE_SPAN / 2 && wire->current <= wire->task.object_count);
    for (uint32_t i = 0; i < wire->task.object_count; i++) {
        const ft_wire_object *object = &wire->task.objects[i];
        HOLDS(!object->at || !object->block_bytes || (uint64_t)object->base * object->block_bytes < object->ref.length + 256ull);
    }
}

/* u8 bytes of a payload; then records of u8 type, u16 bytes, the payload. Time passes with each. */
void fuzz_transfer(fuzz_input in)
{
    start();
    end.wire.session = (ft_wire_session){.running = true, .open = true, .fresh = true, .number = 1};
    end.wire.session.max_payload = (uint16_t)(64 + fuzz_byte(&in) % 193);
    while (in.left) {
        uint8_t type = fuzz_byte(&in);
        size_t count = fuzz_number(&in, 2), most = FT_WIRE_PAYLOAD;
        uint8_t *payload = fuzz_piece(&in, count < most ? count : most, &count);
        switch (type) {
        case FT_FRAME_TASK:
            ft_task_come(&end.wire, payload, (uint32_t)count);
            break;
        case FT_FRAME_DATA:
            ft_fetch_data(&end.wire, payload, (uint32_t)count);
            break;
        case FT_FRAME_REQUEST:
            ft_queue_request(&end.wire, payload, (uint32_t)count);
            break;
        default:
            end.clock += type * 100u;
            ft_fetch_tick(&end.wire, end.clock);
        }
        free(payload);
        due();
    }
    for (uint32_t i = 0; i < end.placed; i++)
        free(end.places[i]);
}
