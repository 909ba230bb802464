#include "pack.h"

#include "../num.h"

/* int8: (low, step) of each channel, then the bytes. */
uint32_t ft_pack_floats(uint32_t form, uint32_t channels, uint32_t pixels)
{
    uint32_t count = channels * pixels;
    return form == FT_PACK_F16 ? count / 2 + count % 2 : 2 * channels + count / 4 + (count % 4 != 0);
}

/* Round to nearest, ties to even; beyond the largest half: the largest half. */
static uint16_t to_half(float x)
{
    uint32_t bits = ft_num_bits(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7FFFFFFFu;
    if (size >= 0x477FF000u)
        return (uint16_t)(sign | 0x7BFFu);
    if (size < 0x33000000u)
        return (uint16_t)sign;
    uint32_t shift = 13, mantissa = size - (112u << 23); /* the exponent stays in front of it */
    if (size < 0x38800000u) {                            /* below the smallest normal half */
        shift = 126 - (size >> 23);
        mantissa = (size & 0x7FFFFFu) | 0x800000u;
    }
    uint32_t half = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), middle = 1u << (shift - 1);
    if (rest > middle || (rest == middle && (half & 1)))
        half++;
    return (uint16_t)(sign | half);
}

static float from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, size = half & 0x7FFFu;
    if (size < 0x400u) {
        float x = (float)size * ft_num_from_bits(0x33800000u); /* 2^-24 */
        return sign ? -x : x;
    }
    return ft_num_from_bits(sign | ((size << 13) + (112u << 23)));
}

void ft_pack_channel(void *packed, uint32_t form, uint32_t channels, uint32_t pixels, uint32_t channel, const float *x)
{
    if (form == FT_PACK_F16) {
        uint16_t *to = (uint16_t *)packed + channel * pixels;
        for (uint32_t i = 0; i < pixels; i++)
            to[i] = to_half(x[i]);
        return;
    }
    float *range = (float *)packed + 2 * channel, low = x[0], high = x[0];
    uint8_t *to = (uint8_t *)((float *)packed + 2 * channels) + channel * pixels;
    for (uint32_t i = 1; i < pixels; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    float step = (high - low) / 255.0f, inverse = step > 0.0f ? 1.0f / step : 0.0f;
    range[0] = low;
    range[1] = step;
    for (uint32_t i = 0; i < pixels; i++) {
        float level = (x[i] - low) * inverse + 0.5f;
        to[i] = level >= 0.0f && level < 256.0f ? (uint8_t)level : 0; /* false for NaN: the loss reports that */
    }
}

void ft_pack_restore(float *x, const void *packed, uint32_t form, uint32_t channels, uint32_t pixels, uint32_t channel)
{
    if (form == FT_PACK_F16) {
        const uint16_t *from = (const uint16_t *)packed + channel * pixels;
        for (uint32_t i = 0; i < pixels; i++)
            x[i] = from_half(from[i]);
        return;
    }
    const float *range = (const float *)packed + 2 * channel;
    const uint8_t *from = (const uint8_t *)((const float *)packed + 2 * channels) + channel * pixels;
    for (uint32_t i = 0; i < pixels; i++)
        x[i] = range[0] + (float)from[i] * range[1];
}
