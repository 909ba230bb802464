/* The dense part of taps.h for Cortex-M: gradients are rows added to rows, as one tap at position 0 adds them. */
#include "taps.h"

void ft_dense_forward(float *restrict y, const float *restrict x, const float *restrict w, const float *bias, uint32_t ci,
                      uint32_t co)
{
    /* two rows share each load of x; an odd last one is its own neighbour */
    for (uint32_t o = 0; o < co; o += 2) {
        const uint32_t next = o + 1 < co ? o + 1 : o;
        const float *w0 = w + o * ci, *w1 = w + next * ci;
        float y0 = bias ? bias[o] : 0.0f, y1 = bias ? bias[next] : 0.0f;
        for (const float *v = x; v < x + ci; v++) {
            y0 += *w0++ * *v;
            y1 += *w1++ * *v;
        }
        y[o] = y0;
        y[next] = y1;
    }
}

/* Row o of `to` += weights[o] times row o of `from`; the rows of each lie `step` apart: n, or 0 where it has but one. */
static void add_rows(float *to, uint32_t to_step, const float *from, uint32_t from_step, const float *weights, uint32_t rows,
                     uint32_t n)
{
    static const uint16_t start = 0;
    const ft_grid row = {.rows = 1, .cols = n, .pitch = n, .step = 1};
    for (; rows; rows--, to += to_step, from += from_step)
        ft_taps_backward_input(to, from, weights++, &start, 1, &row);
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
