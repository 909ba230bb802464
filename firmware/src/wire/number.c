/* Parameters and results: numbers of a task and of its reply. */
#include "zcbor_decode.h"
#include "zcbor_encode.h"

#include "fedtiny_wire.h"

enum { SMALL = 24, LIST = 0x80 }; /* a head below SMALL is the number itself */

static bool open_next(const ft_wire_task *task, uint32_t *at, zcbor_state_t *z)
{
    if (*at == 0 && task->parameter_bytes)
        *at = (task->parameters[0] & 31) < SMALL ? 1 : 2; /* the list's head: fewer than 256 fit */
    zcbor_new_decode_state(z, 1, task->parameters + *at, task->parameter_bytes - *at, 1, 0, 0);
    return *at < task->parameter_bytes;
}

bool ft_wire_integer(const ft_wire_task *task, uint32_t *at, uint32_t *value)
{
    zcbor_state_t z;
    if (!open_next(task, at, &z) || !zcbor_uint32_decode(&z, value))
        return false;
    *at = (uint32_t)(z.payload - task->parameters);
    return true;
}

bool ft_wire_float(const ft_wire_task *task, uint32_t *at, float *value)
{
    zcbor_state_t z;
    if (!open_next(task, at, &z) || !zcbor_float32_decode(&z, value))
        return false;
    *at = (uint32_t)(z.payload - task->parameters);
    return true;
}

bool ft_wire_no_more(const ft_wire_task *task, uint32_t at)
{
    zcbor_state_t z;
    return !open_next(task, &at, &z);
}

/* Fewer than 24 results: their list's head is one byte. */
static void add(ft_wire_reply *reply, const uint32_t *integer, const double *real)
{
    zcbor_state_t z;
    if (!reply->result_bytes) {
        reply->results[0] = LIST;
        reply->result_bytes = 1;
    }
    zcbor_new_encode_state(&z, 1, reply->results + reply->result_bytes, FT_WIRE_RESULTS - reply->result_bytes, 1);
    if (!(integer ? zcbor_uint32_encode(&z, integer) : zcbor_float64_encode(&z, real)))
        return;
    reply->results[0]++;
    reply->result_bytes = (uint8_t)(z.payload - reply->results);
}

void ft_wire_add_integer(ft_wire_reply *reply, uint32_t value) { add(reply, &value, 0); }
void ft_wire_add_double(ft_wire_reply *reply, double value) { add(reply, 0, &value); }

void ft_wire_fail(ft_wire_reply *reply, ft_status status, const char *text, uint32_t first, uint32_t second)
{
    uint32_t end = 0;
    reply->status = (uint8_t)status;
    for (; *text && end < FT_WIRE_PROBLEM; text++) {
        if (*text != '%') {
            reply->problem[end++] = *text;
            continue;
        }
        uint32_t unit = 1;
        while (first / unit >= 10)
            unit *= 10;
        for (; unit && end < FT_WIRE_PROBLEM; unit /= 10)
            reply->problem[end++] = (char)('0' + first / unit % 10);
        first = second;
    }
    reply->problem[end] = 0;
}
