#include "mask.h"

#include "fedtiny.h"

ft_mask ft_mask_open(uint32_t encoding, const uint8_t *bytes, uint32_t length, uint32_t elements)
{
    ft_mask mask = {bytes, length, elements, encoding, 0, 0};
    return mask;
}

bool ft_mask_next(ft_mask *mask, uint32_t *index)
{
    if (mask->encoding == FT_MASK_BITMAP) {
        while (mask->at < mask->elements) {
            uint32_t i = mask->at;
            uint8_t rest = (uint8_t)(mask->bytes[i / 8] >> i % 8);
            if (rest == 0) {
                mask->at = i - i % 8 + 8;
                continue;
            }
            while (!(rest & 1)) {
                rest >>= 1;
                i++;
            }
            mask->at = i + 1;
            *index = i;
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
        if (mask.length && mask.bytes[mask.length - 1] == 255)
            return false;
        /* at most 256 elements a byte: with elements < 2^26 the running index cannot wrap before it is refused */
        for (uint32_t i = 0; i < mask.length; i++) {
            mask.next += mask.bytes[i];
            if (mask.bytes[i] != 255) {
                if (mask.next >= mask.elements)
                    return false;
                mask.next++;
                count++;
            } else if (mask.next > mask.elements) {
                return false;
            }
        }
        *live = count;
        return true;
    } else {
        return false;
    }
    while (ft_mask_next(&mask, &index))
        count++;
    *live = count;
    return true;
}
