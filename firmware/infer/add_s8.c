/* Sum of two tensors of `a` elements; y may be x or x2. multiplier, shift: of x, of the sum; x2 has the larger scale, so that
 * its own multiplier is exactly one half. */
#include "fedtiny_infer.h"
#include "scale.h"

void fti_add_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x), *x2 = (const int8_t *)(arena + op->x2);
    int8_t *y = (int8_t *)(arena + op->y);
    const int32_t m = op->multiplier[0], m_sum = op->multiplier[1];
    const int32_t shift = -op->shift[0], shift_sum = op->shift[1];
    for (int32_t i = 0; i < op->a; i++) {
        const int32_t first = fti_round_shift(fti_high((x[i] - op->x_zero) * (1 << 20), m), shift);
        const int32_t sum = first + (x2[i] - op->x2_zero) * (1 << 19);
        y[i] = (int8_t)fti_clamp(fti_scale(sum, m_sum, shift_sum) + op->y_zero, op->low, op->high);
    }
}
