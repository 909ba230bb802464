#include "wire.h"

#include "../bytes.h"
#include "cbor.h"
#include "cobs.h"
#include "message.h"

enum { ANNOUNCE_MS = 1000, NO_OBJECT = 0xFF, BLOCK_HEADER = 8, KIND_FORGET = 11, LONGEST_BOARD = 31 };
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

/* The download of object i: an unfinished one of the same bytes for the same place goes on. */
static void prepare(ft_wire *wire, uint32_t i, bool have)
{
    ft_wire_download *d = &wire->downloads[i];
    const ft_wire_ref *ref = &wire->task.refs[i];
    uint16_t block_bytes = have ? 0 : (uint16_t)(wire->session.max_payload - BLOCK_HEADER);
    if (d->block_bytes == block_bytes && d->at == wire->task.objects[i] && d->ref.length == ref->length && d->ref.kind == ref->kind
        && memcmp(d->ref.hash, ref->hash, FT_WIRE_HASH) == 0)
        return;
    *d = (ft_wire_download){*ref, block_bytes, wire->task.objects[i], 0};
    wire->fetch.current = NO_OBJECT; /* what is known of blocks was known of another's */
}

static void fetch(ft_wire *wire)
{
    wire->state = FT_TASK_FETCHING;
    wire->damaged = 0;
    ft_fetch_start(wire);
}

/* Finds places for the task's objects and begins to fetch them; a task that cannot be done is complete with what is wrong. */
static void begin(ft_wire *wire)
{
    ft_wire_task *task = &wire->task;
    memset(&wire->reply, 0, sizeof wire->reply);
    memset(&wire->queue, 0, sizeof wire->queue);
    for (uint32_t i = 0; i < task->object_count; i++) {
        bool have = false;
        task->objects[i] = wire->tasks.place(wire->tasks.ctx, task, i, &have, &wire->reply);
        if (!task->objects[i]) {
            if (!wire->reply.status)
                ft_wire_fail(&wire->reply, FT_ERR_NOMEM, "no room for an object of % bytes", task->refs[i].length, 0);
            ft_task_complete(wire);
            return;
        }
        prepare(wire, i, have);
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
    task->number = m[FT_TASK_NUMBER].number;
    task->round = m[FT_TASK_ROUND].number;
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
    uint32_t number = m[FT_TASK_NUMBER].number;
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
    }
    for (uint32_t i = 0; i < reply->object_count; i++)
        ft_object_name(&reply->objects[i]);
    wire->counts.tasks++;
    wire->counts.busy_ms += now_ms(wire) - began;
    wire->state = FT_TASK_DONE;
    wire->wants |= FT_WANTS_REPLY;
}

static uint32_t put_reply(const ft_wire *wire, uint8_t *out)
{
    const ft_wire_reply *r = &wire->reply;
    const ft_wire_task *t = &wire->task;
    ft_writer w = ft_write_map(out);
    ft_write_number(&w, t->number);
    ft_write_string(&w, FT_CBOR_BYTES, t->run, sizeof t->run);
    ft_write_number(&w, t->round);
    ft_write_number(&w, t->attempt);
    ft_write_number(&w, r->status);
    if (r->result_bytes)
        ft_write_raw(&w, r->results, r->result_bytes);
    else
        ft_write_nothing(&w);
    ft_write_refs(&w, r->objects, r->object_count);
    if (r->problem[0])
        ft_write_string(&w, FT_CBOR_TEXT, r->problem, (uint32_t)strlen(r->problem));
    return ft_write_end(&w);
}

static uint32_t put_ack(const ft_wire *wire, uint8_t *out)
{
    ft_writer w = ft_write_map(out);
    ft_write_number(&w, wire->task.number);
    return ft_write_end(&w);
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

static uint32_t put_ready(const ft_wire *wire, uint8_t *out)
{
    (void)wire;
    (void)out;
    return 0;
}

/* By the bits of ft_wire.wants. */
static const struct {
    uint8_t type;
    uint32_t (*put)(const ft_wire *wire, uint8_t *out);
} control[] = {
    {FT_FRAME_HELLO, ft_handshake_hello}, {FT_FRAME_REFUSE, ft_handshake_refuse}, {FT_FRAME_ENROLLED, ft_handshake_enrolled},
    {FT_FRAME_READY, put_ready},          {FT_FRAME_ACK, put_ack},                {FT_FRAME_REPLY, put_reply},
    {FT_FRAME_ANNOUNCE, ft_handshake_announce},
};

/* Makes the next frame; false: there is nothing to send. */
static bool fill(ft_wire *wire)
{
    uint8_t *out = ft_frame_payload(wire), type = FT_FRAME_DATA;
    uint32_t count = 0;
    for (uint32_t i = 0; i < sizeof control / sizeof *control; i++) {
        if (!(wire->wants >> i & 1))
            continue;
        wire->wants &= (uint8_t)~(1u << i);
        if (control[i].type < FT_FRAME_TASK && control[i].type != FT_FRAME_READY ? true : wire->session.running) {
            ft_frame_seal(wire, control[i].type, control[i].put(wire, out));
            return true;
        }
    }
    if (!wire->session.running)
        return false;
    if ((count = ft_fetch_request(wire, out)) != 0) {
        type = FT_FRAME_REQUEST;
    } else if (wire->log) {
        type = FT_FRAME_LOG;
        count = (uint32_t)strlen(wire->log);
        count = count < wire->session.max_payload ? count : wire->session.max_payload;
        memcpy(out, wire->log, count);
        wire->log = 0;
    } else if (!ft_queue_empty(wire)) {
        count = ft_queue_data(wire, out);
    } else {
        return false;
    }
    ft_frame_seal(wire, type, count);
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
