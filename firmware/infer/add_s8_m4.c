/* add_s8.c for Cortex-M with the DSP extension: results that are clamped to no less than int8 go four at a time. */
#include "fedtiny_infer.h"
#include "scale.h"

typedef void fours(int8_t *y, const int8_t *x, const int8_t *x2, uint32_t n, const int32_t constants[8]);
fours fti_add_shifted_s8, fti_add_unshifted_s8; /* whether x's own scale has a shift */

void fti_add_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x), *x2 = (const int8_t *)(arena + op->x2);
    int8_t *y = (int8_t *)(arena + op->y);
    const int32_t m = op->multiplier[0], m_sum = op->multiplier[1], shift = -op->shift[0], shift_sum = op->shift[1];
    const int32_t zero = op->x_zero, zero2 = op->x2_zero, y_zero = op->y_zero, low = op->low, high = op->high;
    int32_t i = 0;
    fti_narrow sum;
    if (op->a >= 4 && low == -128 && high == 127 && fti_narrow_of(&sum, m_sum, shift_sum, y_zero)) {
        const int32_t half = shift ? (int32_t)(1u << (shift - 1)) : 0;
        const int32_t constants[8] = {zero * (1 << 21), m, half, shift, zero2 * (1 << 20), sum.m, sum.add, sum.shift};
        (shift ? fti_add_shifted_s8 : fti_add_unshifted_s8)(y, x, x2, (uint32_t)op->a / 4, constants);
        i = op->a / 4 * 4;
    }
    for (; i < op->a; i++) {
        const int32_t first = fti_round_shift(fti_high((x[i] - zero) * (1 << 20), m), shift);
        const int32_t both = first + (x2[i] - zero2) * (1 << 19);
        y[i] = (int8_t)fti_clamp(fti_scale(both, m_sum, shift_sum) + y_zero, low, high);
    }
}
