/* Sum of two tensors of `a` elements; y may be x or x2. multiplier, shift: of x, of the sum; x2 has the larger scale, so that
 * its own multiplier is exactly one half. */
#include "fedtiny_infer.h"
#include "scale.h"

void fti_add_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x), *x2 = (const int8_t *)(arena + op->x2);
    int8_t *y = (int8_t *)(arena + op->y);
    const int32_t m = op->multiplier[0], m_sum = op->multiplier[1], shift = -op->shift[0], shift_sum = op->shift[1];
    const int32_t zero = op->x_zero, zero2 = op->x2_zero, y_zero = op->y_zero, low = op->low, high = op->high, n = op->a;
    fti_narrow first, sum;
    if (fti_narrow_of(&first, m, -shift, 0) && fti_narrow_of(&sum, m_sum, shift_sum, y_zero)) {
        for (const int8_t *end = x + n; x != end; x++) {
            const int32_t both = fti_narrowed((*x - zero) * (1 << 20), &first) + (*x2++ - zero2) * (1 << 19);
            *y++ = (int8_t)fti_clamp(fti_narrowed(both, &sum), low, high);
        }
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        const int32_t scaled = fti_round_shift(fti_high((x[i] - zero) * (1 << 20), m), shift);
        const int32_t both = scaled + (x2[i] - zero2) * (1 << 19);
        y[i] = (int8_t)fti_clamp(fti_scale(both, m_sum, shift_sum) + y_zero, low, high);
    }
}
