#include "cbor.h"

enum { DIRECT = 24, ONE_BYTE = 24, EIGHT_BYTES = 27 };

/* The low five bits of the shortest head. */
static uint8_t shortest(uint32_t low, uint32_t high)
{
    return high ? EIGHT_BYTES : low > 0xFFFF ? 26 : low > 0xFF ? 25 : low >= DIRECT ? ONE_BYTE : (uint8_t)low;
}

bool ft_cbor_next(ft_cbor *in, ft_cbor_head *head)
{
    if (in->at >= in->end)
        return false;
    head->lead = *in->at++;
    head->major = head->lead >> 5;
    uint8_t info = head->lead & 31;
    head->high = 0;
    head->low = info;
    if (info < DIRECT)
        return true;
    if (info > EIGHT_BYTES || in->end - in->at < 1 << (info - ONE_BYTE))
        return false;
    head->low = 0;
    for (int i = 1 << (info - ONE_BYTE); i--;) {
        head->high = head->high << 8 | head->low >> 24;
        head->low = head->low << 8 | *in->at++;
    }
    return head->major == FT_CBOR_OTHER || info == shortest(head->low, head->high);
}

bool ft_cbor_expect(ft_cbor *in, uint8_t major, uint32_t *number)
{
    ft_cbor_head head;
    if (!ft_cbor_next(in, &head) || head.major != major || head.high)
        return false;
    *number = head.low;
    return true;
}

uint8_t *ft_cbor_put_big_endian(uint8_t *out, uint8_t lead, uint32_t low, uint32_t high)
{
    uint8_t info = lead & 31;
    *out++ = lead;
    for (int i = info < ONE_BYTE ? 0 : 1 << (info - ONE_BYTE); i--;)
        *out++ = (uint8_t)(i < 4 ? low >> 8 * i : high >> 8 * (i - 4));
    return out;
}

uint8_t *ft_cbor_put(uint8_t *out, uint8_t major, uint32_t low, uint32_t high)
{
    return ft_cbor_put_big_endian(out, (uint8_t)(major << 5 | shortest(low, high)), low, high);
}
