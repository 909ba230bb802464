#include "../bytes.h"
#include "message.h"
#include "wire.h"

enum { BLOCK_HEADER = 8, SPAN = 64, NAMED = 4 }; /* NAMED: bytes of the hash in a DATA frame */
enum { MOST = SPAN / 2 }; /* blocks in flight: a block that is lost twice does not yet hold up new ones */
enum { FIRST_WAIT_MS = 250, LAST_WAIT_MS = 2000, TRIES = 10, LEAST_WINDOW = 8, LINE_SHARE_MS = 700, FRAME_COST = 40 };

static uint32_t blocks_of(uint32_t length, uint32_t block_bytes) { return length / block_bytes + (length % block_bytes != 0); }

static uint32_t bytes_of(uint32_t block, uint32_t length, uint32_t block_bytes)
{
    uint32_t left = length - block * block_bytes;
    return left < block_bytes ? left : block_bytes;
}

static uint32_t count_bits(uint64_t bits)
{
    uint32_t count = 0;
    for (; bits; bits &= bits - 1)
        count++;
    return count;
}

/* -- What the node wants: the task's objects, one after the other. */

static ft_wire_download *current(ft_wire *wire) { return &wire->downloads[wire->slots[wire->current]]; }

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
static uint64_t unasked(ft_wire *wire)
{
    const ft_wire_fetch *f = &wire->fetch;
    const ft_wire_download *d = current(wire);
    uint32_t blocks = blocks_of(d->ref.length, d->block_bytes), most = window(wire), flight = count_bits(f->asked | f->to_ask);
    uint64_t known = d->have | f->asked | f->to_ask, found = 0;
    if (flight > most / 2)
        return 0;
    for (uint32_t i = 0; i < SPAN && d->base + i < blocks && flight < most; i++) {
        if (known >> i & 1)
            continue;
        found |= (uint64_t)1 << i;
        flight++;
    }
    return found;
}

static void ask(ft_wire *wire)
{
    wire->fetch.to_ask |= unasked(wire);
    if (wire->fetch.to_ask)
        wire->wants |= FT_WANTS_REQUEST;
}

static void wait(ft_wire *wire)
{
    ft_wire_fetch *f = &wire->fetch;
    uint32_t line_ms = 0, rate = wire->facts->bytes_per_s;
    if (rate) /* twice what the window takes on the line */
        line_ms = count_bits(f->asked) * (uint32_t)(wire->session.max_payload + FRAME_COST) * 2000u / rate;
    f->at_ms = wire->port->now_ms(wire->port->ctx) + (f->wait_ms > line_ms ? f->wait_ms : line_ms);
    f->waiting = true;
}

static void nothing_asked(ft_wire *wire)
{
    ft_wire_fetch *f = &wire->fetch;
    f->asked = f->again = f->to_ask = 0;
    f->mark = 0;
}

/* Goes to the first object that is not there yet. */
static void go_on(ft_wire *wire)
{
    uint8_t hash[FT_WIRE_HASH];
    for (; wire->current < wire->task.object_count; wire->current++) {
        if (wire->slots[wire->current] >= FT_WIRE_OBJECTS)
            continue;
        ft_wire_download *d = current(wire);
        if (d->base < blocks_of(d->ref.length, d->block_bytes)) {
            ask(wire);
            return;
        }
        nothing_asked(wire);
        ft_object_hash(hash, d->ref.kind, d->at, d->ref.length);
        if (memcmp(hash, d->ref.hash, FT_WIRE_HASH) == 0)
            continue;
        d->base = 0;
        d->have = 0;
        if (wire->damaged || !d->ref.length) {
            ft_wire_fail(&wire->reply, FT_ERR_DATA, "object % came twice with bytes that do not have its hash", wire->current, 0);
            break;
        }
        wire->damaged = true;
        wire->current--; /* all of it again, once */
    }
    wire->fetch.waiting = false;
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

void ft_fetch_data(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_wire_fetch *f = &wire->fetch;
    if (wire->state != FT_TASK_FETCHING || count <= BLOCK_HEADER)
        return;
    ft_wire_download *d = current(wire);
    uint32_t block = ft_load_u32(payload + NAMED), ahead = block - d->base;
    if (memcmp(payload, d->ref.hash, NAMED) != 0 || block < d->base || ahead >= SPAN
        || block >= blocks_of(d->ref.length, d->block_bytes)
        || count - BLOCK_HEADER != bytes_of(block, d->ref.length, d->block_bytes))
        return;
    uint64_t bit = (uint64_t)1 << ahead, lost = 0;
    if (block >= f->mark)
        f->again = 0;
    if (f->asked & bit & ~f->again) /* what was asked for before this one has been overtaken */
        lost = f->asked & ~f->again & (bit - 1);
    f->asked &= ~(lost | bit);
    f->to_ask = (f->to_ask | lost) & ~bit;
    f->again |= lost;
    wire->counts.asked_again += count_bits(lost);
    if (!(d->have & bit)) {
        memcpy(d->at + block * d->block_bytes, payload + BLOCK_HEADER, count - BLOCK_HEADER);
        d->have |= bit;
        f->tries = 0;
        f->wait_ms = FIRST_WAIT_MS;
    }
    for (; d->have & 1; d->base++) {
        d->have >>= 1;
        f->asked >>= 1;
        f->again >>= 1;
        f->to_ask >>= 1;
    }
    wait(wire);
    go_on(wire);
}

void ft_fetch_tick(ft_wire *wire, uint32_t now_ms)
{
    ft_wire_fetch *f = &wire->fetch;
    if (!f->waiting || (int32_t)(now_ms - f->at_ms) < 0)
        return;
    wire->counts.asked_again += count_bits(f->asked);
    nothing_asked(wire);
    if (f->tries++ == TRIES) { /* until the host says something */
        f->waiting = false;
        return;
    }
    f->wait_ms = 2 * f->wait_ms < LAST_WAIT_MS ? 2 * f->wait_ms : LAST_WAIT_MS;
    ask(wire);
    wait(wire);
}

uint32_t ft_fetch_request(ft_wire *wire, uint8_t *out)
{
    ft_wire_fetch *f = &wire->fetch;
    ft_wire_download *d = current(wire);
    if (wire->state != FT_TASK_FETCHING || !f->to_ask)
        return 0;
    ft_item m[] = {{FT_WIRE_HASH, d->ref.hash, true}, {d->base, 0, true}, {f->to_ask, 0, true}};
    if (f->to_ask & f->again) {
        uint32_t above = 0;
        while (above < SPAN && f->asked >> above)
            above++;
        f->mark = d->base + above;
    }
    f->asked |= f->to_ask;
    f->to_ask = 0;
    wait(wire);
    return ft_message_encode(&ft_request, m, out, FT_WIRE_PAYLOAD);
}

/* -- What the host wants: blocks of the reply's objects. No other state is kept about it. */

static uint32_t block_bytes(const ft_wire *wire) { return wire->session.max_payload - BLOCK_HEADER; }

/* by < 128 */
static void shift_up(uint64_t bits[2], uint32_t by)
{
    if (by >= 64) {
        bits[1] = bits[0];
        bits[0] = 0;
        by -= 64;
    }
    if (by) {
        bits[1] = bits[1] << by | bits[0] >> (64 - by);
        bits[0] <<= by;
    }
}

/* Blocks that lie too far behind others that wait are forgotten: the host asks again. */
void ft_queue_request(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_item m[FT_ITEMS];
    ft_wire_queue *q = &wire->queue;
    uint32_t i = 0;
    if (!ft_message_decode(&ft_request, payload, count, m) || wire->state != FT_TASK_DONE)
        return;
    while (i < wire->reply.object_count && memcmp(wire->reply.objects[i].ref.hash, m[FT_REQUEST_HASH].at, FT_WIRE_HASH) != 0)
        i++;
    if (i == wire->reply.object_count)
        return;
    uint32_t first = (uint32_t)m[FT_REQUEST_FIRST].number, blocks = blocks_of(wire->reply.objects[i].ref.length, block_bytes(wire));
    uint64_t wanted[2] = {m[FT_REQUEST_WANTED].number, 0};
    if (first >= blocks)
        return;
    if (blocks - first < SPAN)
        wanted[0] &= ((uint64_t)1 << (blocks - first)) - 1;
    if (q->object != i || ft_queue_empty(wire) || (first < q->base && q->base - first >= 2 * SPAN)) {
        q->object = (uint8_t)i;
        q->base = first;
        q->bits[0] = q->bits[1] = 0;
    }
    if (first < q->base) {
        shift_up(q->bits, q->base - first);
        q->base = first;
    }
    if (first - q->base >= 2 * SPAN)
        return;
    shift_up(wanted, first - q->base);
    q->bits[0] |= wanted[0];
    q->bits[1] |= wanted[1];
}

bool ft_queue_empty(const ft_wire *wire) { return !(wire->queue.bits[0] | wire->queue.bits[1]); }

uint32_t ft_queue_data(ft_wire *wire, uint8_t *out)
{
    ft_wire_queue *q = &wire->queue;
    bool found = false;
    while (!found) {
        found = q->bits[0] & 1;
        q->bits[0] = q->bits[0] >> 1 | q->bits[1] << 63;
        q->bits[1] >>= 1;
        q->base++;
    }
    const ft_wire_source *source = &wire->reply.objects[q->object];
    uint32_t block = q->base - 1, count = bytes_of(block, source->ref.length, block_bytes(wire));
    memcpy(out, source->ref.hash, NAMED);
    for (int i = 0; i < 4; i++)
        out[NAMED + i] = (uint8_t)(block >> 8 * i);
    ft_object_read(source, block * block_bytes(wire), out + BLOCK_HEADER, count);
    return BLOCK_HEADER + count;
}
