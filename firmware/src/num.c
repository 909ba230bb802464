#include "num.h"

#include <math.h>

#include "fedtiny.h"

bool ft_num_all_finite(const float *x, uint32_t count)
{
    uint32_t i = 0;
    for (; i + 4 <= count; i += 4) { /* 0 times infinity or NaN is NaN */
        float sum = (x[i] * 0.0f + x[i + 1] * 0.0f) + (x[i + 2] * 0.0f + x[i + 3] * 0.0f);
        if (sum != sum)
            return false;
    }
    for (; i < count; i++)
        if (!ft_num_finite(x[i]))
            return false;
    return true;
}

/* exp(x) = 2^n exp(r), r = x - n ln 2 in two parts, |r| <= ln(2)/2; Taylor polynomial of degree 7 in Horner form. */
float ft_num_exp(float x)
{
    if (x > 88.7f)
        return ft_num_from_bits(0x7F800000u);
    if (!(x > -87.3f))
        return x != x ? x : 0.0f;
    float scaled = x * 1.44269504f;
    int32_t n = (int32_t)(scaled + (scaled >= 0.0f ? 0.5f : -0.5f));
    float fn = (float)n;
    float r = x - fn * 0.693359375f;
    r = r - fn * -2.12194440e-4f;
    float p = 1.9841270e-4f;
    p = p * r + 1.3888889e-3f;
    p = p * r + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    if (n == 128) /* 2^128 is no float: scale in two steps */
        return p * 2.0f * ft_num_from_bits(0x7F000000u);
    return p * ft_num_from_bits((uint32_t)(n + 127) << 23);
}

/* log(m 2^e) = e ln 2 + log(m), m in [sqrt(1/2), sqrt(2)); log(m) = 2 atanh(s), s = (m - 1) / (m + 1), as an odd series. */
float ft_num_log(float x)
{
    uint32_t bits = ft_num_bits(x);
    if (x != x || bits == 0x7F800000u)
        return x;
    if (!(x > 0.0f))
        return x == 0.0f ? ft_num_from_bits(0xFF800000u) : ft_num_from_bits(0x7FC00000u);
    int32_t e = (int32_t)(bits >> 23) - 127;
    float m = ft_num_from_bits((bits & 0x007FFFFFu) | 0x3F800000u);
    if (m > 1.41421356f) {
        m = m * 0.5f;
        e = e + 1;
    }
    float f = m - 1.0f;
    float s = f / (2.0f + f);
    float z = s * s;
    float p = 2.2222222e-1f;
    p = p * z + 2.8571429e-1f;
    p = p * z + 0.4f;
    p = p * z + 6.6666667e-1f;
    float half = 0.5f * f * f;
    /* log(1 + f) = f - (f^2/2 - s (f^2/2 + z p)): the leading term is exact, the rest small */
    float fe = (float)e;
    return fe * 0.693359375f + (fe * -2.12194440e-4f + (s * (half + z * p) - half) + f);
}

enum { GUARD = 9 }; /* bits below a binary64 mantissa */

void ft_num_add(double *sum, float x)
{
    uint32_t bits = ft_num_bits(x), size = bits >> 23 & 255;
    uint64_t wide, top = 1ull << (52 + GUARD);
    memcpy(&wide, sum, sizeof wide);
    /* both as value 2^exponent with the mantissa's first bit at `top`; a sum is never subnormal, for no float is as small */
    int32_t e = (int32_t)(wide >> 52 & 2047), other_e = (int32_t)(size ? size : 1) + 1023 - 127;
    int64_t value = (int64_t)(e ? ((wide << GUARD) & (top - 1)) | top : 0);
    e = e ? e : other_e; /* 0 */
    int64_t other = (int64_t)((bits & 0x7FFFFFu) | (uint32_t)(size != 0) << 23) << (29 + GUARD);
    value = wide >> 63 ? -value : value;
    other = bits >> 31 ? -other : other;
    for (; e < other_e; e++)
        value = value >> 1 | (value & 1); /* what is shifted out still counts as "not exact" */
    for (; other_e < e; other_e++)
        other = other >> 1 | (other & 1);
    value += other;
    wide = (uint64_t)(value < 0 ? -value : value);
    for (; wide >= 2 * top; e++)
        wide = wide >> 1 | (wide & 1);
    for (; wide && wide < top; e--)
        wide <<= 1;
    wide = (wide + 255 + (wide >> GUARD & 1)) >> GUARD; /* ties to even */
    if (wide)
        wide = (((uint64_t)(e - 1) << 52) + wide) | (uint64_t)(value < 0) << 63;
    memcpy(sum, &wide, sizeof wide);
}

float ft_num_sqrt(float x) { return sqrtf(x); }

static uint32_t mix(uint32_t v)
{
    v ^= v >> 16;
    v *= 0x7FEB352Du;
    v ^= v >> 15;
    v *= 0x846CA68Bu;
    v ^= v >> 16;
    return v;
}

uint32_t ft_shuffle(uint32_t index, uint32_t count, uint32_t key)
{
    uint32_t bits = 0;
    if (index >= count)
        return index;
    while (bits < 32 && (count - 1) >> bits)
        bits++;
    if (bits < 2)
        bits = 2;
    uint32_t half = (bits + 1) / 2, low = (1u << half) - 1;
    uint32_t x = index;
    do {
        uint32_t left = x >> half, right = x & low;
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t next = (left ^ mix(right + round * 0x9E3779B9u + key)) & low;
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= count);
    return x;
}
