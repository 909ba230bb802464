/* Convolution. x (xh, xw, xc), y (yh, yw, yc), weights as columns_s8.h says with depth kh kw xc; bias, multiplier and
 * shift for each channel. work: two columns of int16, 2 * 2 * padded depth bytes. */
#include "columns_s8.h"
#include "window.h"

static int16_t *zeros(int16_t *to, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = 0;
    return to + n;
}

/* The window of one output pixel, row by row of the kernel. */
static void column(int16_t *to, const int8_t *x, const fti_op *op, uint32_t row, uint32_t col)
{
    const uint32_t xc = op->xc, line = op->xw * xc;
    const int32_t top = (int32_t)(row * op->sh) - op->top, left = (int32_t)(col * op->sw) - op->left;
    if (op->dw == 1 && top >= 0 && left >= 0 && top + (op->kh - 1) * op->dh < op->xh && left + op->kw <= op->xw) {
        fti_widen_s8(to, x + (uint32_t)top * line + (uint32_t)left * xc, op->kh, op->kw * xc, op->dh * line, op->x_zero);
        return;
    }
    const fti_span rows = fti_window(row, op->sh, op->top, op->kh, op->dh, op->xh);
    const fti_span cols = fti_window(col, op->sw, op->left, op->kw, op->dw, op->xw);
    for (uint32_t i = 0; i < op->kh; i++) {
        if (i < rows.from || i >= rows.to || cols.from == cols.to) {
            to = zeros(to, op->kw * xc);
            continue;
        }
        const int8_t *from = x + (uint32_t)(rows.at + (int32_t)(i * op->dh)) * line;
        to = zeros(to, cols.from * xc);
        if (op->dw == 1) {
            const uint32_t n = (cols.to - cols.from) * xc;
            fti_widen_s8(to, from + (uint32_t)(cols.at + (int32_t)cols.from) * xc, 1, n, 0, op->x_zero);
            to += n;
        } else {
            for (uint32_t j = cols.from; j < cols.to; j++, to += xc)
                fti_widen_s8(to, from + (uint32_t)(cols.at + (int32_t)(j * op->dw)) * xc, 1, xc, 0, op->x_zero);
        }
        to = zeros(to, (op->kw - cols.to) * xc);
    }
}

void fti_conv_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    int8_t *y = (int8_t *)(arena + op->y);
    const uint32_t depth = (uint32_t)op->kh * op->kw * op->xc, quads = (depth + 3) / 4;
    int16_t *x0 = (int16_t *)(void *)(arena + op->work), *x1 = x0 + 4 * quads;
    const uint32_t pixels = (uint32_t)op->yh * op->yw;
    zeros(x0 + depth, 4 * quads - depth);
    zeros(x1 + depth, 4 * quads - depth);
    for (uint32_t p = 0, row = 0, col = 0; p < pixels; p += 2) {
        for (uint32_t i = 0; i < 2 && p + i < pixels; i++) {
            column(i ? x1 : x0, x, op, row, col);
            if (++col == op->yw) {
                col = 0;
                row++;
            }
        }
        if (p + 1 < pixels)
            fti_columns_s8(y + p * op->yc, y + (p + 1) * op->yc, x0, x1, quads, op);
        else
            fti_columns_s8(y + p * op->yc, y + p * op->yc, x0, x0, quads, op);
    }
}
