#include "mask.h"

#include "fedtiny.h"

enum { RICE_MOST = 15 }; /* the largest parameter */

ft_mask ft_mask_open(uint32_t encoding, const uint8_t *bytes, uint32_t length, uint32_t elements)
{
    ft_mask mask = {bytes, length, elements, encoding, 0, 0};
    return mask;
}

static bool is_rice(const ft_mask *mask) { return (mask->encoding & 255) == FT_MASK_RICE; }

static uint32_t bit(const ft_mask *mask, uint32_t at) { return mask->bytes[at / 8] >> at % 8 & 1; }

/* Where no whole gap that stays inside the mask follows, false, and nothing moves. */
static bool next_rice(ft_mask *mask, uint32_t *index)
{
    uint32_t k = mask->encoding >> 8, end = 8 * mask->length, at = mask->at, gap = 0, low = 0;
    for (; at < end && bit(mask, at); at++)
        gap++;
    if (at + k >= end || gap > mask->elements >> k)
        return false;
    at++;
    for (uint32_t i = 0; i < k; i++)
        low |= bit(mask, at++) << i;
    gap = gap << k | low;
    if (gap >= mask->elements - mask->next)
        return false;
    *index = mask->next + gap;
    mask->next = *index + 1;
    mask->at = at;
    return true;
}

bool ft_mask_next(ft_mask *mask, uint32_t *index)
{
    if (is_rice(mask))
        return next_rice(mask, index);
    if (mask->encoding == FT_MASK_BITMAP) {
        for (; mask->at < mask->elements; mask->at++)
            if (bit(mask, mask->at)) {
                *index = mask->at++;
                return true;
            }
        return false;
    }
    while (mask->at < mask->length) {
        uint8_t step = mask->bytes[mask->at++];
        mask->next += step;
        if (step != 255) {
            *index = mask->next++;
            return true;
        }
    }
    return false;
}

bool ft_mask_check(ft_mask mask, uint32_t *live)
{
    uint32_t index, count = 0;
    if (mask.encoding == FT_MASK_BITMAP) {
        if (mask.length != mask.elements / 8 + (mask.elements % 8 != 0))
            return false;
        if (mask.elements % 8 && mask.bytes[mask.length - 1] >> mask.elements % 8)
            return false;
    } else if (mask.encoding == FT_MASK_DELTAS) {
        /* no byte stands for less than one element: so the running index, 255 a byte at most, cannot wrap */
        if (mask.length > mask.elements || (mask.length && mask.bytes[mask.length - 1] == 255))
            return false;
    } else if (!is_rice(&mask) || mask.encoding >> 8 > RICE_MOST || mask.length > mask.elements / 8 + 1) {
        return false;
    }
    for (; ft_mask_next(&mask, &index); count++)
        if (index >= mask.elements)
            return false;
    *live = count;
    if (is_rice(&mask)) { /* what is left must be spare bits: where a gap was refused there is a zero, or a whole byte */
        uint32_t left = 8 * mask.length - mask.at;
        return left < 8 && (left == 0 || (uint32_t)mask.bytes[mask.length - 1] >> (8 - left) == (1u << left) - 1);
    }
    return true;
}
