#include "wire.h"

#include "../bytes.h"
#include "cobs.h"
#include "message.h"

enum { ANNOUNCE_MS = 1000, NO_SLOT = 0xFF, KIND_FORGET = 11, LONGEST_BOARD = 31 };
enum { NOTHING = -1 };
/* The longest control message, a REPLY, fits any build's frame; so does HELLO. */
typedef char a_reply_fits_a_frame[FT_WIRE_PAYLOAD >= 512 && FT_WIRE_PAYLOAD <= 4096 ? 1 : -1];

static uint32_t now_ms(const ft_wire *wire) { return wire->port->now_ms(wire->port->ctx); }

ft_status ft_wire_start(ft_wire *wire, const ft_wire_port *port, const ft_wire_facts *facts, ft_wire_tasks tasks)
{
    size_t id = facts->device ? strlen(facts->device) : 0;
    if (id < 1 || id > FT_WIRE_ID || !facts->board || strlen(facts->board) > LONGEST_BOARD)
        return FT_ERR_ARG;
    memset(wire, 0, sizeof *wire);
    wire->port = port;
    wire->facts = facts;
    wire->tasks = tasks;
    if (!ft_record_start(wire))
        return FT_ERR_DATA;
    wire->announcing = true;
    wire->announce_at = now_ms(wire);
    return FT_OK;
}

bool ft_wire_sending(const ft_wire *wire) { return wire->sent_from < wire->sent_to; }
void ft_wire_log(ft_wire *wire, const char *text) { wire->log = text; }

/* -- Tasks */

static bool overlaps(const ft_wire_download *a, const ft_wire_download *b)
{
    return a->at < b->at + b->ref.length && b->at < a->at + a->ref.length;
}

static bool same_ref(const ft_wire_ref *a, const ft_wire_ref *b)
{
    return a->kind == b->kind && a->length == b->length && memcmp(a->hash, b->hash, FT_WIRE_HASH) == 0;
}

/* The download of object i: an unfinished one of the same bytes at the same place goes on. */
static uint8_t slot_for(ft_wire *wire, uint32_t i)
{
    ft_wire_download new = {wire->task.refs[i], (uint16_t)(wire->session.max_payload - 8), wire->task.objects[i], 0, 0};
    uint8_t chosen = NO_SLOT;
    for (uint8_t s = 0; s < FT_WIRE_OBJECTS; s++) {
        ft_wire_download *d = &wire->downloads[s];
        bool taken = false;
        for (uint32_t k = 0; k < i; k++)
            taken |= wire->slots[k] == s;
        if (taken)
            continue;
        if (d->block_bytes == new.block_bytes && d->at == new.at && same_ref(&d->ref, &new.ref)) {
            chosen = s;
            new = *d;
        } else if (d->block_bytes && overlaps(d, &new)) {
            d->block_bytes = 0;
        }
        if (chosen == NO_SLOT || (!d->block_bytes && new.base == 0 && new.have == 0 && wire->downloads[chosen].block_bytes))
            chosen = s;
    }
    wire->downloads[chosen] = new;
    return chosen;
}

static void fetch(ft_wire *wire)
{
    wire->state = FT_TASK_FETCHING;
    wire->damaged = false;
    ft_fetch_start(wire);
}

/* Finds places for the task's objects and begins to fetch them; a task that cannot be done is complete with what is wrong. */
static void begin(ft_wire *wire)
{
    ft_wire_task *task = &wire->task;
    memset(&wire->reply, 0, sizeof wire->reply);
    wire->queue.bits[0] = wire->queue.bits[1] = 0;
    for (uint32_t i = 0; i < task->object_count; i++) {
        bool have = false;
        task->objects[i] = wire->tasks.place(wire->tasks.ctx, task, i, &have, &wire->reply);
        if (!task->objects[i]) {
            if (!wire->reply.status)
                ft_wire_fail(&wire->reply, FT_ERR_NOMEM, "no room for an object of % bytes", task->refs[i].length, 0);
            ft_task_complete(wire);
            return;
        }
        wire->slots[i] = have ? NO_SLOT : slot_for(wire, i);
    }
    fetch(wire);
}

void ft_task_complete(ft_wire *wire)
{
    wire->state = FT_TASK_COMPLETE;
    wire->fetch.waiting = false;
    wire->wants |= FT_WANTS_ACK;
}

static bool take(ft_wire_task *task, const ft_item *m)
{
    const ft_item *parameters = &m[FT_TASK_PARAMETERS];
    memset(task, 0, sizeof *task);
    task->number = (uint32_t)m[FT_TASK_NUMBER].number;
    task->round = (uint32_t)m[FT_TASK_ROUND].number;
    task->attempt = (uint8_t)m[FT_TASK_ATTEMPT].number;
    task->kind = (uint8_t)m[FT_TASK_KIND].number;
    memcpy(task->run, m[FT_TASK_RUN].at, sizeof task->run);
    task->object_count = (uint8_t)ft_message_get_refs(&m[FT_TASK_OBJECTS], task->refs);
    if (parameters->there && parameters->number > FT_WIRE_NUMBERS)
        return false;
    if (parameters->there) {
        task->parameter_bytes = (uint8_t)parameters->number;
        memcpy(task->parameters, parameters->at, task->parameter_bytes);
    }
    return true;
}

static void on_task(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_item m[FT_ITEMS];
    ft_wire_task *task = &wire->task;
    if (!ft_message_decode(&ft_task, payload, count, m)) {
        wire->counts.dropped++;
        return;
    }
    uint32_t number = (uint32_t)m[FT_TASK_NUMBER].number;
    bool fresh = wire->session.fresh, same = wire->state != FT_TASK_NONE && number == task->number
        && task->kind == m[FT_TASK_KIND].number && task->round == m[FT_TASK_ROUND].number
        && task->attempt == m[FT_TASK_ATTEMPT].number && memcmp(task->run, m[FT_TASK_RUN].at, sizeof task->run) == 0;
    if (!fresh && !same && (int32_t)(number - task->number) <= 0)
        return; /* RFC 1982: an old one */
    wire->session.fresh = false;
    if (!same) {
        bool fits = take(task, m);
        begin(wire);
        if (!fits) {
            ft_wire_fail(&wire->reply, FT_ERR_ARG, "more than % bytes of parameters", FT_WIRE_NUMBERS, 0);
            ft_task_complete(wire);
        }
        return;
    }
    wire->wants |= wire->state == FT_TASK_DONE ? FT_WANTS_REPLY : FT_WANTS_ACK;
    if (wire->state != FT_TASK_FETCHING)
        return;
    if (fresh) /* blocks may have another size now */
        begin(wire);
    else if (!wire->fetch.waiting)
        ft_fetch_start(wire);
}

static void work(ft_wire *wire)
{
    ft_wire_reply *reply = &wire->reply;
    uint32_t began = now_ms(wire);
    if (!reply->status) {
        if (wire->task.kind != KIND_FORGET)
            wire->tasks.work(wire->tasks.ctx, &wire->task, &wire->counts, ft_record_boots(wire), reply);
        else if (!ft_record_forget(wire))
            ft_wire_fail(reply, FT_ERR_DATA, "the key could not be erased: the storage failed", 0, 0);
        if (!reply->untouched)
            memset(wire->downloads, 0, sizeof wire->downloads);
    }
    for (uint32_t i = 0; i < reply->object_count; i++)
        ft_object_name(&reply->objects[i]);
    wire->counts.tasks++;
    wire->counts.busy_ms += now_ms(wire) - began;
    wire->state = FT_TASK_DONE;
    wire->wants |= FT_WANTS_REPLY;
}

static uint32_t put_reply(ft_wire *wire, uint8_t *out)
{
    const ft_wire_reply *r = &wire->reply;
    const ft_wire_task *t = &wire->task;
    uint8_t raw[FT_REFS_BYTES];
    ft_wire_ref refs[FT_WIRE_OBJECTS];
    for (uint32_t i = 0; i < r->object_count; i++)
        refs[i] = r->objects[i].ref;
    ft_item m[FT_ITEMS] = {
        [FT_REPLY_NUMBER] = {t->number, 0, true},
        [FT_REPLY_RUN] = {sizeof t->run, t->run, true},
        [FT_REPLY_ROUND] = {t->round, 0, true},
        [FT_REPLY_ATTEMPT] = {t->attempt, 0, true},
        [FT_REPLY_STATUS] = {r->status, 0, true},
        [FT_REPLY_RESULTS] = {r->result_bytes, r->results, r->result_bytes > 0},
        [FT_REPLY_OBJECTS] = {ft_message_put_refs(raw, refs, r->object_count), raw, r->object_count > 0},
        [FT_REPLY_PROBLEM] = {strlen(r->problem), (const uint8_t *)r->problem, r->problem[0] != 0},
    };
    return ft_message_encode(&ft_reply, m, out, FT_WIRE_PAYLOAD);
}

static uint32_t put_ack(const ft_wire *wire, uint8_t *out)
{
    ft_item m[] = {{wire->task.number, 0, true}};
    return ft_message_encode(&ft_ack, m, out, FT_WIRE_PAYLOAD);
}

/* -- Receiving */

static void on_frame(ft_wire *wire, const ft_frame *frame)
{
    switch (frame->type) {
    case FT_FRAME_INVITE:
        ft_handshake_invite(wire, frame->payload, frame->count);
        break;
    case FT_FRAME_WELCOME:
        ft_handshake_welcome(wire, frame->payload, frame->count);
        break;
    case FT_FRAME_ENROL:
        ft_handshake_enrol(wire, frame->payload, frame->count);
        break;
    case FT_FRAME_TASK:
        on_task(wire, frame->payload, frame->count);
        break;
    case FT_FRAME_REQUEST:
        ft_queue_request(wire, frame->payload, frame->count);
        break;
    case FT_FRAME_DATA:
        ft_fetch_data(wire, frame->payload, frame->count);
        break;
    case FT_FRAME_ACK: /* the reply's objects stay until the next task: nothing is gained by forgetting them */
        break;
    case FT_FRAME_BYE:
        wire->session.running = wire->fetch.waiting = false;
        break;
    default:
        wire->counts.dropped++;
    }
}

static void on_bytes(ft_wire *wire, uint32_t count)
{
    ft_frame frame;
    if (ft_frame_open(wire, wire->received, count, &frame))
        on_frame(wire, &frame);
    else
        wire->counts.dropped++;
}

void ft_wire_feed(ft_wire *wire, const uint8_t *bytes, size_t count)
{
    if (wire->facts->frames) {
        if (count <= FT_WIRE_FRAME) {
            memcpy(wire->received, bytes, count);
            on_bytes(wire, (uint32_t)count);
        }
        return;
    }
    for (; count; count--) {
        uint8_t byte = *bytes++;
        if (byte == 0) {
            if (wire->held && !wire->overlong)
                on_bytes(wire, ft_cobs_decode(wire->received, wire->held));
            wire->held = 0;
            wire->overlong = false;
        } else if (wire->held < FT_WIRE_STUFFED) {
            wire->received[wire->held++] = byte;
        } else {
            wire->overlong = true;
        }
    }
}

/* -- Sending */

static int32_t put_control(ft_wire *wire, uint32_t want, uint8_t *out, uint8_t *type)
{
    uint32_t count;
    switch (want) {
    case FT_WANTS_HELLO:
        *type = FT_FRAME_HELLO;
        count = ft_handshake_hello(wire, out);
        break;
    case FT_WANTS_REFUSE:
        *type = FT_FRAME_REFUSE;
        count = ft_handshake_refuse(wire, out);
        break;
    case FT_WANTS_ENROLLED:
        *type = FT_FRAME_ENROLLED;
        count = ft_handshake_enrolled(wire, out);
        break;
    case FT_WANTS_ANNOUNCE:
        *type = FT_FRAME_ANNOUNCE;
        count = ft_handshake_announce(wire, out);
        break;
    case FT_WANTS_READY:
        *type = FT_FRAME_READY;
        return wire->session.running ? 0 : NOTHING;
    case FT_WANTS_ACK:
        *type = FT_FRAME_ACK;
        count = put_ack(wire, out);
        break;
    case FT_WANTS_REPLY:
        *type = FT_FRAME_REPLY;
        count = put_reply(wire, out);
        break;
    default:
        *type = FT_FRAME_REQUEST;
        count = ft_fetch_request(wire, out);
    }
    return count && (*type < FT_FRAME_TASK || wire->session.running) ? (int32_t)count : NOTHING;
}

/* Makes the next frame; false: there is nothing to send. */
static bool fill(ft_wire *wire)
{
    uint8_t *out = ft_frame_payload(wire), type = FT_FRAME_DATA;
    while (wire->wants) {
        uint16_t want = (uint16_t)(wire->wants & -wire->wants);
        wire->wants &= (uint16_t)~want;
        int32_t count = put_control(wire, want, out, &type);
        if (count != NOTHING) {
            ft_frame_seal(wire, type, (uint32_t)count);
            return true;
        }
    }
    if (!wire->session.running)
        return false;
    if (wire->log) {
        size_t count = strlen(wire->log);
        count = count < wire->session.max_payload ? count : wire->session.max_payload;
        memcpy(out, wire->log, count);
        wire->log = 0;
        ft_frame_seal(wire, FT_FRAME_LOG, (uint32_t)count);
        return true;
    }
    if (ft_queue_empty(wire))
        return false;
    ft_frame_seal(wire, FT_FRAME_DATA, ft_queue_data(wire, out));
    return true;
}

/* true: all is sent. */
static bool flush(ft_wire *wire)
{
    do {
        while (ft_wire_sending(wire)) {
            size_t taken = wire->port->write(wire->port->ctx, wire->sent_bytes + wire->sent_from,
                                             (size_t)(wire->sent_to - wire->sent_from));
            if (!taken)
                return false;
            wire->sent_from = (uint16_t)(wire->sent_from + taken);
            wire->spoke = true;
        }
    } while (fill(wire));
    wire->spoke = false;
    return true;
}

static uint32_t until(uint32_t now, uint32_t at, uint32_t wait)
{
    int32_t left = (int32_t)(at - now);
    uint32_t due = left > 0 ? (uint32_t)left : 0;
    return due < wait ? due : wait;
}

uint32_t ft_wire_poll(ft_wire *wire)
{
    uint32_t now = now_ms(wire), wait = FT_WIRE_FOREVER;
    if (wire->announcing && (int32_t)(now - wire->announce_at) >= 0) {
        wire->wants |= FT_WANTS_ANNOUNCE;
        wire->announce_at = now + ANNOUNCE_MS;
    }
    ft_fetch_tick(wire, now);
    if (flush(wire) && wire->state == FT_TASK_COMPLETE) {
        work(wire);
        flush(wire);
        now = now_ms(wire);
    }
    if (wire->announcing)
        wait = until(now, wire->announce_at, wait);
    if (wire->fetch.waiting)
        wait = until(now, wire->fetch.at_ms, wait);
    return wait;
}
