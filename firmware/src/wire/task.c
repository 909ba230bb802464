#include <string.h>

#include "cbor.h"
#include "message.h"
#include "wire.h"

enum { NO_OBJECT = 0xFF, BLOCK_HEADER = 8, FORGET = 11 };

void ft_task_complete(ft_wire *wire)
{
    wire->state = FT_TASK_COMPLETE;
    wire->fetch.waiting = false;
    wire->wants |= FT_WANTS_ACK;
}

/* Finds places for the task's objects and begins to fetch them: an unfinished one of the same bytes for the same place goes on.
 * A task that cannot be done is complete with what is wrong. */
static void begin(ft_wire *wire, const ft_wire_ref *refs)
{
    ft_wire_task *task = &wire->task;
    wire->wants &= (uint8_t)~(FT_WANTS_ACK | FT_WANTS_REPLY); /* of the task before */
    memset(&wire->reply, 0, sizeof wire->reply);
    memset(&wire->queue, 0, sizeof wire->queue);
    for (uint32_t i = 0; i < task->object_count; i++) {
        ft_wire_object *object = &task->objects[i];
        bool have = false, goes_on = memcmp(&object->ref, &refs[i], sizeof *refs) == 0;
        object->ref = refs[i];
        uint8_t *at = wire->tasks.place(wire->tasks.ctx, task, i, &have, &wire->reply);
        uint16_t block_bytes = have ? 0 : (uint16_t)(wire->session.max_payload - BLOCK_HEADER);
        if (!goes_on || at != object->at || block_bytes != object->block_bytes) {
            object->at = at;
            object->block_bytes = block_bytes;
            object->base = 0;
            wire->fetch.current = NO_OBJECT; /* what is known of blocks was known of another's */
        }
        if (!at) { /* and the reply says why */
            ft_task_complete(wire);
            return;
        }
    }
    wire->state = FT_TASK_FETCHING;
    wire->damaged = 0;
    ft_fetch_start(wire);
}

void ft_task_come(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_item m[FT_ITEMS];
    ft_wire_ref refs[FT_WIRE_OBJECTS];
    ft_wire_task *task = &wire->task;
    memset(refs, 0, sizeof refs); /* what lies between fields is compared too */
    if (!ft_message_decode(&ft_task, payload, count, m)) {
        wire->counts.dropped++;
        return;
    }
    const ft_item *parameters = &m[FT_TASK_PARAMETERS];
    uint32_t number = m[FT_TASK_NUMBER].number;
    bool fresh = wire->session.fresh, same = wire->state != FT_TASK_NONE && number == task->number;
    if (!fresh && !same && (int32_t)(number - task->number) <= 0)
        return; /* RFC 1982: an old one */
    wire->session.fresh = false;
    if (same) {
        wire->wants |= wire->state == FT_TASK_DONE ? FT_WANTS_REPLY : FT_WANTS_ACK;
        if (wire->state != FT_TASK_FETCHING)
            return;
        if (!fresh) {
            if (!wire->fetch.waiting)
                ft_fetch_start(wire);
            return;
        } /* blocks may have another size now */
    }
    task->number = number;
    task->round = m[FT_TASK_ROUND].number;
    task->attempt = (uint8_t)m[FT_TASK_ATTEMPT].number;
    task->kind = (uint8_t)m[FT_TASK_KIND].number;
    memcpy(task->run, m[FT_TASK_RUN].at, sizeof task->run);
    task->object_count = (uint8_t)ft_message_get_refs(&m[FT_TASK_OBJECTS], refs);
    bool fits = parameters->number <= FT_WIRE_NUMBERS;
    task->parameter_bytes = fits ? (uint8_t)parameters->number : 0;
    memcpy(task->parameters, fits && parameters->at ? parameters->at : payload, task->parameter_bytes);
    begin(wire, refs);
    if (!fits) {
        ft_wire_fail(&wire->reply, FT_ERR_ARG, ft_status_text(FT_ERR_ARG), 0, 0);
        ft_task_complete(wire);
    }
}

void ft_task_do(ft_wire *wire)
{
    ft_wire_reply *reply = &wire->reply;
    uint32_t began = wire->port->now_ms(wire->port->ctx);
    if (!reply->status) {
        if (wire->task.kind != FORGET)
            wire->tasks.work(wire->tasks.ctx, &wire->task, &wire->counts, ft_record_boots(wire), reply);
        else if (!ft_record_forget(wire))
            ft_wire_fail(reply, FT_ERR_DATA, "the storage failed", 0, 0);
    }
    for (uint32_t i = 0; i < reply->object_count; i++)
        ft_object_name(&reply->objects[i]);
    wire->counts.tasks++;
    wire->counts.busy_ms += wire->port->now_ms(wire->port->ctx) - began;
    wire->state = FT_TASK_DONE;
    wire->wants |= FT_WANTS_REPLY;
}

uint32_t ft_task_reply(const ft_wire *wire, uint8_t *out)
{
    const ft_wire_reply *r = &wire->reply;
    const ft_wire_task *t = &wire->task;
    char words[FT_WIRE_PROBLEM];
    ft_writer w = ft_write_map(out);
    ft_write_number(&w, t->number);
    ft_write_string(&w, FT_CBOR_BYTES, t->run, sizeof t->run);
    ft_write_number(&w, t->round);
    ft_write_number(&w, t->attempt);
    ft_write_number(&w, r->status);
    ft_write_raw(&w, r->results, r->result_bytes);
    ft_write_refs(&w, r->objects, r->object_count);
    if (r->problem)
        ft_write_string(&w, FT_CBOR_TEXT, words, ft_number_words(r, words));
    return ft_write_end(&w);
}

uint32_t ft_task_ack(const ft_wire *wire, uint8_t *out)
{
    ft_writer w = ft_write_map(out);
    ft_write_number(&w, wire->task.number);
    return ft_write_end(&w);
}
