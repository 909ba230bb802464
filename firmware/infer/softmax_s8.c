/* Softmax of beta x over the last of two axes: xh rows of xc, scale 1/256, zero point -128; y may be x. Fixed point as LiteRT
 * has it, bit for bit: multiplier and shift take a difference to 5 integer bits, differences below `a` count as 0. */
#include "fedtiny_infer.h"
#include "scale.h"

/* The upper half of 2 a b, rounded to nearest: a product of numbers with 31 bits after the point. */
static int32_t times(int32_t a, int32_t b)
{
    if (a == INT32_MIN && b == INT32_MIN)
        return INT32_MAX;
    return (int32_t)(((int64_t)a * b + (1LL << 30)) >> 31);
}

/* fti_round_shift for any x */
static int32_t lower(int32_t x, int32_t shift)
{
    return shift == 0 ? x : (int32_t)(((int64_t)x + (1LL << (shift - 1)) + (x >> 31)) >> shift);
}

/* x 2^shift, saturated. */
static int32_t raise(int32_t x, int32_t shift)
{
    const int32_t most = INT32_MAX >> shift;
    return x > most ? INT32_MAX : x < -most - 1 ? INT32_MIN : (int32_t)((uint32_t)x << shift);
}

/* exp(x) for -1/4 <= x < 0, by a polynomial about -1/8 */
static int32_t exp_near(int32_t x)
{
    const int32_t at_eighth = 1895147668, third = 715827883;
    x += 1 << 28;
    const int32_t x2 = times(x, x), x3 = times(x2, x), x4 = times(x2, x2);
    const int32_t tail = lower(times(lower(x4, 2) + x3, third) + x2, 1);
    return at_eighth + times(at_eighth, x + tail);
}

/* exp(x) with 31 bits after the point, of x <= 0 with 26: factors for the bits of x from a quarter up. */
static int32_t exp_below(int32_t x)
{
    static const int32_t factor[7] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
    if (x == 0)
        return INT32_MAX;
    const int32_t near = (x & ((1 << 24) - 1)) - (1 << 24), rest = near - x;
    int32_t result = exp_near(raise(near, 5));
    for (int32_t i = 0; i < 7; i++)
        if (rest & (int32_t)(1u << (24 + i)))
            result = times(result, factor[i]);
    return result;
}

/* 1 / (1 + x) for 0 <= x < 1, by Newton's method from a line. */
static int32_t inverse(int32_t x)
{
    const int32_t half = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2);
    int32_t y = 1515870810 + times(half, -1010580540); /* 48/17 - 32/17 half, 2 integer bits */
    for (int32_t i = 0; i < 3; i++)
        y += raise(times(y, (1 << 29) - times(half, y)), 2);
    return raise(y, 1);
}

void fti_softmax_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    int8_t *y = (int8_t *)(arena + op->y);
    const int32_t m = *op->multiplier, shift = *op->shift;
    for (uint32_t row = 0; row < op->xh; row++, x += op->xc, y += op->xc) {
        int32_t most = -128, sum = 0;
        for (uint32_t i = 0; i < op->xc; i++)
            most = x[i] > most ? x[i] : most;
        for (uint32_t i = 0; i < op->xc; i++)
            if (x[i] - most >= op->a)
                sum += lower(exp_below(times((int32_t)((uint32_t)(x[i] - most) << shift), m)), 12);
        int32_t zeros = 0;
        while (zeros < 31 && !((uint32_t)sum >> (31 - zeros)))
            zeros++;
        const int32_t scale = inverse((int32_t)(((uint32_t)sum << zeros) - (1u << 31)));
        for (uint32_t i = 0; i < op->xc; i++) {
            const int32_t difference = x[i] - most;
            int32_t result = -128;
            if (difference >= op->a) {
                const int32_t e = exp_below(times((int32_t)((uint32_t)difference << shift), m));
                result = lower(times(scale, e), fti_clamp(12 - zeros + 31 - 8, 0, 31)) - 128;
            }
            y[i] = (int8_t)fti_clamp(result, -128, 127);
        }
    }
}
