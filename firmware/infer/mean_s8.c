/* Mean over the middle axis: x (xh, xw, xc) to y (xh, xc). multiplier, shift: the ratio of scales divided by xw. */
#include "fedtiny_infer.h"
#include "scale.h"

void fti_mean_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    int8_t *y = (int8_t *)(arena + op->y);
    for (uint32_t row = 0; row < op->xh; row++, x += op->xw * op->xc)
        for (uint32_t c = 0; c < op->xc; c++, y++) {
            int32_t sum = -op->x_zero * op->xw;
            for (uint32_t i = 0; i < op->xw; i++)
                sum += x[i * op->xc + c];
            *y = (int8_t)fti_clamp(fti_scale(sum, *op->multiplier, *op->shift) + op->y_zero, op->low, op->high);
        }
}
