/* Parameters and results: numbers of a task and of its reply. */
#include <string.h>

#include "cbor.h"
#include "wire.h"

static bool next(const ft_wire_task *task, uint32_t *at, ft_cbor_head *head)
{
    ft_cbor in = {task->parameters + *at, task->parameters + task->parameter_bytes};
    if ((*at == 0 && !ft_cbor_next(&in, head)) || !ft_cbor_next(&in, head)) /* the list's own head comes first */
        return false;
    *at = (uint32_t)(in.at - task->parameters);
    return true;
}

bool ft_wire_numbers(const ft_wire_task *task, const char *form, uint32_t *out)
{
    ft_cbor_head head;
    uint32_t at = 0;
    for (; *form; form++, out++) {
        if (!next(task, &at, &head) || (*form == 'f' ? head.lead != FT_CBOR_F32 : head.major != FT_CBOR_UINT || head.high))
            return false;
        *out = head.low;
    }
    return !next(task, &at, &head);
}

bool ft_wire_integer(const ft_wire_task *task, uint32_t *at, uint32_t *value)
{
    ft_cbor_head head;
    uint32_t then = *at;
    if (!next(task, &then, &head) || head.major != FT_CBOR_UINT || head.high)
        return false;
    *at = then;
    *value = head.low;
    return true;
}

bool ft_wire_float(const ft_wire_task *task, uint32_t *at, float *value)
{
    ft_cbor_head head;
    uint32_t then = *at;
    if (!next(task, &then, &head) || head.lead != FT_CBOR_F32)
        return false;
    *at = then;
    memcpy(value, &head.low, sizeof *value);
    return true;
}

bool ft_wire_no_more(const ft_wire_task *task, uint32_t at)
{
    ft_cbor_head head;
    return !next(task, &at, &head);
}

/* Fewer than 24 results: their list's head is one byte. */
static void add(ft_wire_reply *reply, uint32_t low, uint32_t high, bool real)
{
    enum { LONGEST = 9 };
    uint8_t *at = reply->results + reply->result_bytes;
    if (reply->result_bytes + LONGEST > FT_WIRE_RESULTS)
        return;
    if (!reply->result_bytes)
        *at++ = FT_CBOR_LIST << 5;
    reply->results[0]++;
    at = real ? ft_cbor_put_big_endian(at, FT_CBOR_F64, low, high) : ft_cbor_put(at, FT_CBOR_UINT, low, 0);
    reply->result_bytes = (uint8_t)(at - reply->results);
}

void ft_wire_add_integer(ft_wire_reply *reply, uint32_t value) { add(reply, value, 0, false); }

void ft_wire_add_double(ft_wire_reply *reply, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    add(reply, (uint32_t)bits, (uint32_t)(bits >> 32), true);
}

void ft_wire_fail(ft_wire_reply *reply, ft_status status, const char *text, uint32_t first, uint32_t second)
{
    reply->status = (uint8_t)status;
    reply->problem = text;
    reply->numbers[0] = first;
    reply->numbers[1] = second;
}

uint32_t ft_number_words(const ft_wire_reply *reply, char words[FT_WIRE_PROBLEM])
{
    const uint32_t *number = reply->numbers;
    uint32_t end = 0;
    for (const char *text = reply->problem; *text && end < FT_WIRE_PROBLEM; text++) {
        if (*text != '%') {
            words[end++] = *text;
            continue;
        }
        uint32_t unit = 1;
        while (*number / unit >= 10)
            unit *= 10;
        for (; unit && end < FT_WIRE_PROBLEM; unit /= 10)
            words[end++] = (char)('0' + *number / unit % 10);
        number++;
    }
    return end;
}
