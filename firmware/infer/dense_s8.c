/* Fully connected: xh rows of xc to xh rows of yc, weights as columns_s8.h says; multiplier and shift for each channel.
 * work: one column of int16, 2 * padded depth bytes. */
#include "columns_s8.h"

void fti_dense_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    int8_t *y = (int8_t *)(arena + op->y);
    int16_t *column = (int16_t *)(void *)(arena + op->work);
    const uint32_t quads = (op->xc + 3u) / 4;
    for (uint32_t i = op->xc; i < 4 * quads; i++)
        column[i] = 0;
    for (uint32_t row = 0; row < op->xh; row++, x += op->xc, y += op->yc) {
        fti_widen_s8(column, x, 1, op->xc, 0, op->x_zero);
        fti_column_s8(y, column, quads, op);
    }
}
