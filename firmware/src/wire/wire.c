#include "wire.h"

#include <string.h>

#include "cobs.h"

enum { ANNOUNCE_MS = 1000, LONGEST_BOARD = 31 };
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
        ft_task_come(wire, frame->payload, frame->count);
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
    {FT_FRAME_READY, put_ready},          {FT_FRAME_ACK, ft_task_ack},                {FT_FRAME_REPLY, ft_task_reply},
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
        ft_task_do(wire);
        flush(wire);
        now = now_ms(wire);
    }
    if (wire->announcing)
        wait = until(now, wire->announce_at, wait);
    if (wire->fetch.waiting)
        wait = until(now, wire->fetch.at_ms, wait);
    return wait;
}
