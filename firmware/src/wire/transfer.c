#include <string.h>

#include "../bytes.h"
#include "cbor.h"
#include "message.h"
#include "wire.h"

enum { BLOCK_HEADER = 8, SPAN = FT_WIRE_SPAN, NAMED = 4 }; /* NAMED: bytes of the hash in a DATA frame */
enum { MOST = SPAN / 2 }; /* blocks in flight: a block that is lost twice does not yet hold up new ones */
enum { FIRST_WAIT_MS = 250, LAST_WAIT_MS = 2000, TRIES = 10, LEAST_WINDOW = 8, LINE_SHARE_MS = 700, FRAME_COST = 40 };
/* What is known of a block: AGAIN is in flight for another time, LOST is to be. */
enum { UNKNOWN, TO_ASK, LOST, ASKED, AGAIN, HAVE };

static uint32_t blocks_of(uint32_t length, uint32_t block_bytes) { return length / block_bytes + (length % block_bytes != 0); }

static uint32_t bytes_of(uint32_t block, uint32_t length, uint32_t block_bytes)
{
    uint32_t left = length - block * block_bytes;
    return left < block_bytes ? left : block_bytes;
}

/* -- What the node wants: the task's objects, one after the other. */

static ft_wire_object *current(ft_wire *wire) { return &wire->task.objects[wire->current]; }
static uint8_t *state(ft_wire *wire, uint32_t block) { return &wire->fetch.blocks[block % SPAN]; }
static uint32_t block_count(const ft_wire_object *d) { return blocks_of(d->ref.length, d->block_bytes); }

static uint32_t window(const ft_wire *wire)
{
    const ft_wire_facts *facts = wire->facts;
    uint32_t blocks = facts->window ? facts->window : MOST;
    if (!facts->window && facts->bytes_per_s) {
        blocks = facts->bytes_per_s / (wire->session.max_payload * 1000u / LINE_SHARE_MS);
        blocks = blocks < LEAST_WINDOW ? LEAST_WINDOW : blocks;
    }
    return blocks < MOST ? blocks : MOST;
}

/* Blocks never asked for, as many as the window has room for, once half of it is free. */
static void ask(ft_wire *wire)
{
    ft_wire_fetch *f = &wire->fetch;
    const ft_wire_object *d = current(wire);
    uint32_t most = window(wire);
    if (f->flight <= most / 2)
        for (uint32_t block = d->base; block < block_count(d) && block - d->base < SPAN && f->flight < most; block++)
            if (*state(wire, block) == UNKNOWN) {
                *state(wire, block) = TO_ASK;
                f->flight++;
            }
}

static void wait(ft_wire *wire)
{
    ft_wire_fetch *f = &wire->fetch;
    uint32_t line_ms = 0, rate = wire->facts->bytes_per_s;
    if (rate) /* twice what is in flight takes on the line */
        line_ms = f->flight * (uint32_t)(wire->session.max_payload + FRAME_COST) * 2000u / rate;
    f->at_ms = wire->port->now_ms(wire->port->ctx) + (f->wait_ms > line_ms ? f->wait_ms : line_ms);
    f->waiting = true;
}

/* What is in flight will not come; what has come stays. */
static void nothing_asked(ft_wire *wire)
{
    ft_wire_fetch *f = &wire->fetch;
    for (uint32_t i = 0; i < SPAN; i++)
        if (f->blocks[i] != HAVE)
            f->blocks[i] = UNKNOWN;
    f->flight = 0;
    f->next = f->mark = 0;
}

/* Goes to the first object that is not there yet. Bytes of another time, that something else was written over since, do not have
 * the hash either, and are fetched again. */
static void go_on(ft_wire *wire)
{
    uint8_t hash[FT_WIRE_HASH];
    for (; wire->current < wire->task.object_count; wire->current++) {
        ft_wire_object *d = current(wire);
        if (!d->block_bytes) /* it is there already */
            continue;
        if (wire->fetch.current != wire->current) {
            memset(wire->fetch.blocks, UNKNOWN, SPAN);
            nothing_asked(wire);
        }
        wire->fetch.current = wire->current;
        if (d->base < block_count(d)) {
            ask(wire);
            return;
        }
        ft_object_hash(hash, d->ref.kind, d->at, d->ref.length);
        if (memcmp(hash, d->ref.hash, FT_WIRE_HASH) == 0)
            continue;
        d->base = 0;
        nothing_asked(wire);
        if (wire->damaged >> wire->current & 1 || !d->ref.length) {
            ft_wire_fail(&wire->reply, FT_ERR_DATA, "object % came twice with a wrong hash", wire->current, 0);
            break;
        }
        wire->damaged |= (uint8_t)(1 << wire->current);
        wire->current--; /* all of it again, once */
    }
    ft_task_complete(wire);
}

void ft_fetch_start(ft_wire *wire)
{
    wire->current = 0;
    wire->fetch.tries = 0;
    wire->fetch.wait_ms = FIRST_WAIT_MS;
    nothing_asked(wire);
    go_on(wire);
}

static bool store(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_wire_object *d = current(wire);
    uint32_t block = ft_load_u32(payload + NAMED);
    if (memcmp(payload, d->ref.hash, NAMED) != 0 || block < d->base || block - d->base >= SPAN || block >= block_count(d)
        || count != bytes_of(block, d->ref.length, d->block_bytes))
        return false;
    ft_wire_fetch *f = &wire->fetch;
    uint8_t *known = state(wire, block);
    for (uint32_t other = d->base; other < d->base + SPAN; other++) {
        uint8_t *s = state(wire, other);
        if (block >= f->mark && *s == AGAIN)
            *s = ASKED;
        if (*known == ASKED && other < block && *s == ASKED) { /* overtaken by one that was asked for later */
            *s = LOST;
            wire->counts.asked_again++;
        }
    }
    if (*known == HAVE)
        return false;
    memcpy(d->at + block * d->block_bytes, payload + BLOCK_HEADER, count);
    if (*known != UNKNOWN)
        f->flight--;
    *known = HAVE;
    for (; *state(wire, d->base) == HAVE; d->base++)
        *state(wire, d->base) = UNKNOWN;
    return true;
}

void ft_fetch_data(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_wire_fetch *f = &wire->fetch;
    if (wire->state != FT_TASK_FETCHING || count <= BLOCK_HEADER)
        return;
    if (store(wire, payload, count - BLOCK_HEADER)) {
        f->tries = 0;
        f->wait_ms = FIRST_WAIT_MS;
        wait(wire);
        go_on(wire);
    }
}

void ft_fetch_tick(ft_wire *wire, uint32_t now_ms)
{
    ft_wire_fetch *f = &wire->fetch;
    if (!f->waiting || (int32_t)(now_ms - f->at_ms) < 0)
        return;
    wire->counts.asked_again += f->flight;
    nothing_asked(wire);
    f->waiting = f->tries++ < TRIES; /* else until the host says something */
    if (!f->waiting)
        return;
    f->wait_ms = 2 * f->wait_ms < LAST_WAIT_MS ? 2 * f->wait_ms : LAST_WAIT_MS;
    ask(wire);
    wait(wire);
}

uint32_t ft_fetch_request(ft_wire *wire, uint8_t *out)
{
    ft_wire_fetch *f = &wire->fetch;
    const ft_wire_object *d = current(wire);
    uint32_t wanted[2] = {0, 0}, next = f->next;
    if (wire->state != FT_TASK_FETCHING)
        return 0;
    for (uint32_t i = 0; i < SPAN; i++) {
        uint8_t *s = state(wire, d->base + i);
        if (*s != TO_ASK && *s != LOST)
            continue;
        wanted[i / 32] |= 1u << i % 32;
        if (*s == LOST)
            f->mark = f->next;
        else if (d->base + i >= next)
            next = d->base + i + 1;
        *s = *s == LOST ? AGAIN : ASKED;
    }
    f->next = next;
    if (!(wanted[0] | wanted[1]))
        return 0;
    wait(wire);
    ft_writer w = ft_write_map(out);
    ft_write_string(&w, FT_CBOR_BYTES, d->ref.hash, FT_WIRE_HASH);
    ft_write_number(&w, d->base);
    ft_write_long(&w, wanted[0], wanted[1]);
    return ft_write_end(&w);
}

/* -- What the host wants: blocks of the reply's objects. No other state is kept about it. */

static uint32_t block_bytes(const ft_wire *wire) { return wire->session.max_payload - BLOCK_HEADER; }

bool ft_queue_empty(const ft_wire *wire) { return wire->queue.base == wire->queue.end; }

/* A block too far from others that wait is forgotten: the host asks again. */
static void enqueue(ft_wire_queue *q, uint32_t block)
{
    if (q->base == q->end)
        q->base = q->end = block;
    if (block < q->base) {
        if (q->end - block > FT_WIRE_QUEUE)
            return;
        q->base = block;
    } else if (block >= q->end) {
        if (block - q->base >= FT_WIRE_QUEUE)
            return;
        q->end = block + 1;
    }
    q->bits[block % FT_WIRE_QUEUE / 8] |= (uint8_t)(1 << block % 8);
}

void ft_queue_request(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_item m[FT_ITEMS];
    ft_wire_queue *q = &wire->queue;
    uint8_t i = 0;
    if (wire->state != FT_TASK_DONE || !ft_message_decode(&ft_request, payload, count, m))
        return;
    while (i < wire->reply.object_count && memcmp(wire->reply.objects[i].ref.hash, m[FT_REQUEST_HASH].at, FT_WIRE_HASH) != 0)
        i++;
    if (i == wire->reply.object_count)
        return;
    if (q->object != i)
        memset(q, 0, sizeof *q);
    q->object = i;
    uint32_t first = m[FT_REQUEST_FIRST].number, blocks = blocks_of(wire->reply.objects[i].ref.length, block_bytes(wire));
    uint32_t wanted[2] = {m[FT_REQUEST_WANTED].number, m[FT_REQUEST_WANTED].high};
    for (uint32_t k = 0; k < 64 && first < blocks && k < blocks - first; k++)
        if (wanted[k / 32] >> k % 32 & 1)
            enqueue(q, first + k);
}

uint32_t ft_queue_data(ft_wire *wire, uint8_t *out)
{
    ft_wire_queue *q = &wire->queue;
    uint32_t block = q->base;
    while (!(q->bits[block % FT_WIRE_QUEUE / 8] >> block % 8 & 1))
        block++;
    q->bits[block % FT_WIRE_QUEUE / 8] &= (uint8_t)~(1 << block % 8);
    q->base = block + 1;
    const ft_wire_source *source = &wire->reply.objects[q->object];
    uint32_t count = bytes_of(block, source->ref.length, block_bytes(wire));
    memcpy(out, source->ref.hash, NAMED);
    ft_store_u32(out + NAMED, block);
    ft_object_read(source, block * block_bytes(wire), out + BLOCK_HEADER, count);
    return BLOCK_HEADER + count;
}
