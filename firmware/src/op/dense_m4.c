/* The dense part of taps.h for Cortex-M: gradients are rows added to rows, as one tap at position 0 adds them. */
#include "taps_m4.h"

void ft_dense_forward(float *restrict y, const float *restrict x, const float *restrict w, const float *bias, uint32_t ci,
                      uint32_t co)
{
    /* four rows share each load of x; what is beyond the last row is that row again */
    for (uint32_t o = 0; o < co; o += 4) {
        const uint32_t last = co - 1, b = o + 1 < last ? o + 1 : last, c = o + 2 < last ? o + 2 : last,
                       d = o + 3 < last ? o + 3 : last;
        const float *w0 = w + o * ci, *w1 = w + b * ci, *w2 = w + c * ci, *w3 = w + d * ci;
        float y0 = 0.0f, y1 = 0.0f, y2 = 0.0f, y3 = 0.0f;
        if (bias)
            y0 = bias[o], y1 = bias[b], y2 = bias[c], y3 = bias[d];
        for (const float *v = x; v < x + ci; v++) {
            y0 += *w0++ * *v;
            y1 += *w1++ * *v;
            y2 += *w2++ * *v;
            y3 += *w3++ * *v;
        }
        y[o] = y0;
        y[b] = y1;
        y[c] = y2;
        y[d] = y3;
    }
}

/* Row o of `to` += weights[o] times row o of `from`; the rows of each lie `step` apart: n, or 0 where it has but one. */
static void add_rows(float *to, uint32_t to_step, const float *from, uint32_t from_step, const float *weights, uint32_t rows,
                     uint32_t n)
{
    static const uint16_t start = 0;
    const ft_grid row = {1, n, n, false, 0};
    for (; rows; rows--, to += to_step, from += from_step)
        ft_m4_backward_input(to, from, weights++, &start, 1, &row, sizeof *to);
}

void ft_dense_backward_input(float *restrict dx, const float *restrict dy, const float *restrict w, uint32_t ci, uint32_t co)
{
    add_rows(dx, 0, w, ci, dy, co, ci);
}

void ft_dense_backward_weight(float *restrict dw, const float *restrict dy, const float *restrict x, uint32_t ci,
                              uint32_t co)
{
    add_rows(dw, ci, x, 0, dy, co, ci);
}
