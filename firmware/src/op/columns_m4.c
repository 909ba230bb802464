/* The linear layer's part of taps.h for Cortex-M: a batch side by side is one row of outputs. */
#include "taps_m4.h"

void ft_columns_forward(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,
                        uint32_t n)
{
    ft_grid row = {1, n, n, false, 0};
    ft_m4_forward(y, x, w, at, taps, bias, &row, 4 * n);
}

void ft_columns_backward_input(float *dx, const float *dy, const float *w, const uint16_t *at, uint32_t taps,
                               uint32_t n)
{
    ft_grid row = {1, n, n, false, 0};
    if (n > 1) {
        ft_m4_backward_input(dx, dy, w, at, taps, &row, 4 * n);
        return;
    }
    const float grad = *dy;
    for (uint32_t k = 0; k < taps; k++)
        dx[at[k]] += w[k] * grad;
}

void ft_columns_backward_weight(float *dw, const float *dy, const float *x, const uint16_t *at, uint32_t taps,
                                uint32_t n)
{
    ft_grid row = {1, n, n, false, 0};
    if (n > 1) {
        ft_m4_backward_weight(dw, dy, x, at, taps, &row, 4 * n);
        return;
    }
    const float grad = *dy;
    for (uint32_t k = 0; k < taps; k++)
        dw[k] += grad * x[at[k]];
}
