/* Depthwise convolution. x (xh, xw, xc), y (yh, yw, yc) with yc a multiple of xc, weights (kh, kw, yc); bias, multiplier
 * and shift for each channel. */
#include "fedtiny_infer.h"
#include "scale.h"
#include "window.h"

void fti_depthwise_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x), *w = op->weight;
    const int32_t *bias = op->bias;
    int8_t *y = (int8_t *)(arena + op->y);
    const uint32_t xc = op->xc, yc = op->yc, many = yc / xc;
    for (uint32_t row = 0; row < op->yh; row++) {
        const fti_span rows = fti_window(row, op->sh, op->top, op->kh, op->dh, op->xh);
        for (uint32_t col = 0; col < op->yw; col++, y += yc) {
            const fti_span cols = fti_window(col, op->sw, op->left, op->kw, op->dw, op->xw);
            for (uint32_t c = 0; c < yc; c++) {
                int32_t sum = bias ? bias[c] : 0;
                for (uint32_t i = rows.from; i < rows.to; i++) {
                    const uint32_t line = (uint32_t)(rows.at + (int32_t)(i * op->dh)) * op->xw;
                    for (uint32_t j = cols.from; j < cols.to; j++)
                        sum += (x[(line + (uint32_t)(cols.at + (int32_t)(j * op->dw))) * xc + c / many] - op->x_zero) *
                               w[(i * op->kw + j) * yc + c];
                }
                sum = fti_scale(sum, op->multiplier[c], op->shift[c]) + op->y_zero;
                y[c] = (int8_t)fti_clamp(sum, op->low, op->high);
            }
        }
    }
}
