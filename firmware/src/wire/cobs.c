#include "cobs.h"

uint32_t ft_cobs_encode(uint8_t *out, const uint8_t *in, uint32_t count)
{
    uint32_t code_at = 0, end = 1;
    uint8_t code = 1;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t byte = in[i];
        if (byte) {
            out[end++] = byte;
            code++;
        }
        if (!byte || (code == 255 && i + 1 < count)) {
            out[code_at] = code;
            code_at = end++;
            code = 1;
        }
    }
    out[code_at] = code;
    return end;
}

uint32_t ft_cobs_decode(uint8_t *bytes, uint32_t count)
{
    uint32_t end = 0;
    for (uint32_t i = 0; i < count;) {
        uint8_t code = bytes[i++];
        if (code == 0 || code - 1u > count - i)
            return 0;
        for (uint8_t k = 1; k < code; k++)
            bytes[end++] = bytes[i++];
        if (code != 255 && i < count)
            bytes[end++] = 0;
    }
    return end;
}
