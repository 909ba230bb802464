#include "mask.h"

#include "fedtiny.h"

enum { RICE_MOST = 15 }; /* the largest parameter */

ft_mask ft_mask_open(uint32_t encoding, const uint8_t *bytes, uint32_t length, uint32_t elements)
{
    ft_mask mask = {bytes, length, elements, encoding, 0, 0};
    return mask;
}

static uint32_t bit(const ft_mask *mask, uint32_t at) { return mask->bytes[at / 8] >> at % 8 & 1; }

/* The gap that begins at *at, which moves behind it; false where it does not end inside the bytes or the elements. A bitmap is
 * read as Golomb-Rice with a parameter of 0 and all bits turned round. */
static bool gap_at(const ft_mask *mask, uint32_t *at, uint32_t *gap)
{
    uint32_t k = mask->encoding >> 8, stop = mask->encoding == FT_MASK_BITMAP, end = 8 * mask->length, low = 0, step = 255;
    *gap = 0;
    if (mask->encoding == FT_MASK_DELTAS) {
        while (step == 255 && *at < mask->length)
            *gap += step = mask->bytes[(*at)++]; /* no overflow: there are at most 2^24 bytes */
        return step != 255;
    }
    while (*at < end && bit(mask, *at) != stop) {
        ++*at;
        ++*gap;
    }
    if (*at + k >= end || *gap > mask->elements >> k)
        return false;
    ++*at;
    for (uint32_t i = 0; i < k; i++)
        low |= bit(mask, (*at)++) << i;
    *gap = *gap << k | low;
    return true;
}

bool ft_mask_next(ft_mask *mask, uint32_t *index)
{
    uint32_t at = mask->at, gap;
    if (!gap_at(mask, &at, &gap) || gap >= mask->elements - mask->next)
        return false; /* and nothing moves */
    *index = mask->next + gap;
    mask->next = *index + 1;
    mask->at = at;
    return true;
}

bool ft_mask_check(ft_mask mask, uint32_t *live)
{
    uint32_t index, most = mask.elements / 8 + (mask.elements % 8 != 0);
    bool bitmap = mask.encoding == FT_MASK_BITMAP, deltas = mask.encoding == FT_MASK_DELTAS;
    bool rice = (mask.encoding & 255) == FT_MASK_RICE && mask.encoding >> 8 <= RICE_MOST;
    if (!(bitmap || deltas || rice) || mask.length > (deltas ? mask.elements : most) || (bitmap && mask.length < most))
        return false;
    for (*live = 0; ft_mask_next(&mask, &index);)
        ++*live;
    if (deltas)
        return mask.at == mask.length;
    most = 8 * mask.length;
    if (rice && most - mask.at >= 8)
        return false;
    while (mask.at < most && bit(&mask, mask.at) != bitmap) /* spare bits; where a gap was refused there is another */
        mask.at++;
    return mask.at == most;
}
