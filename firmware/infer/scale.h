/* LiteRT's arithmetic between scales, bit for bit. */
#ifndef FTI_SCALE_H
#define FTI_SCALE_H

#include <stdint.h>

/* The upper half of 2 x m, rounded to nearest, ties up: for |x| < 2^30. */
static inline int32_t fti_high(int32_t x, int32_t m)
{
    const int64_t product = (int64_t)(int32_t)((uint32_t)x << 1) * m;
    return (int32_t)(product >> 32) + (int32_t)((uint32_t)product >> 31);
}

/* x / 2^shift rounded to nearest, ties away from 0; 0 <= shift <= 31. */
static inline int32_t fti_round_shift(int32_t x, int32_t shift)
{
    if (shift == 0)
        return x;
    return (int32_t)((uint32_t)x + (1u << (shift - 1)) + (uint32_t)(x >> 31)) >> shift;
}

/* x m 2^(shift - 31), rounded twice as LiteRT does: to 31 bits, ties up, then to the result, ties away from 0.
 * 0 <= m, |x| < 2^30. */
static inline int32_t fti_scale(int32_t x, int32_t m, int32_t shift)
{
    if (shift > 0) {
        const int64_t scaled = ((int64_t)(int32_t)((uint32_t)x << shift) * m + (1LL << 30)) >> 31;
        return scaled > 1 << 30 ? 1 << 30 : scaled < -(1 << 30) ? -(1 << 30) : (int32_t)scaled;
    }
    return fti_round_shift(fti_high(x, m), -shift);
}

/* x m 2^(shift - 31) rounded once, ties up: what LiteRT does in fully connected layers. 0 <= m, |x| < 2^31. */
static inline int32_t fti_scale_once(int32_t x, int32_t m, int32_t shift)
{
    const int64_t scaled = ((int64_t)x * m + (1LL << (30 - shift))) >> (31 - shift);
    return scaled > 1 << 30 ? 1 << 30 : scaled < -(1 << 30) ? -(1 << 30) : (int32_t)scaled;
}

/* What fti_scale does with a shift of -1 to -22, ready for many sums, the zero point added before the shift. */
typedef struct {
    int32_t m, shift, add;
} fti_narrow;

static inline int fti_narrow_of(fti_narrow *n, int32_t m, int32_t shift, int32_t zero)
{
    if (shift > -1 || shift < -22)
        return 0;
    n->m = m;
    n->shift = -shift;
    n->add = zero * (1 << -shift) + (1 << (-shift - 1));
    return 1;
}

/* fti_scale(x, ...) + zero */
static inline int32_t fti_narrowed(int32_t x, const fti_narrow *n)
{
    const int32_t high = fti_high(x, n->m);
    return (high + (high >> 31) + n->add) >> n->shift;
}

static inline int32_t fti_clamp(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : x > high ? high : x;
}

#endif
