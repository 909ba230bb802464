/* The linear layer's part of taps.h in portable C. */
#include "taps.h"

void ft_columns_forward(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,
                        uint32_t n)
{
    if (n == 1) {
        float acc = bias;
        uint32_t k = 0;
        for (; k + 4 <= taps; k += 4, w += 4, at += 4) {
            acc += w[0] * x[at[0]];
            acc += w[1] * x[at[1]];
            acc += w[2] * x[at[2]];
            acc += w[3] * x[at[3]];
        }
        for (; k < taps; k++)
            acc += *w++ * x[*at++];
        *y = acc;
        return;
    }
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float acc0 = bias, acc1 = bias, acc2 = bias, acc3 = bias;
        for (uint32_t k = 0; k < taps; k++) {
            const float *run = x + at[k] * n + i;
            acc0 += w[k] * run[0];
            acc1 += w[k] * run[1];
            acc2 += w[k] * run[2];
            acc3 += w[k] * run[3];
        }
        y[i] = acc0;
        y[i + 1] = acc1;
        y[i + 2] = acc2;
        y[i + 3] = acc3;
    }
    for (; i < n; i++) {
        float acc = bias;
        for (uint32_t k = 0; k < taps; k++)
            acc += w[k] * x[at[k] * n + i];
        y[i] = acc;
    }
}

void ft_columns_backward_input(float *dx, const float *dy, const float *w, const uint16_t *at, uint32_t taps,
                               uint32_t n)
{
    if (n == 1) {
        const float grad = *dy;
        for (uint32_t k = 0; k < taps; k++)
            dx[at[k]] += w[k] * grad;
        return;
    }
    for (uint32_t k = 0; k < taps; k++) {
        float *run = dx + at[k] * n;
        for (uint32_t i = 0; i < n; i++)
            run[i] += w[k] * dy[i];
    }
}

void ft_columns_backward_weight(float *dw, const float *dy, const float *x, const uint16_t *at, uint32_t taps,
                                uint32_t n)
{
    if (n == 1) {
        const float grad = *dy;
        for (uint32_t k = 0; k < taps; k++)
            dw[k] += grad * x[at[k]];
        return;
    }
    for (uint32_t k = 0; k < taps; k++) {
        const float *run = x + at[k] * n;
        float lanes[FT_LANES] = {0};
        for (uint32_t i = 0; i < n; i++)
            lanes[i % FT_LANES] += dy[i] * run[i];
        dw[k] += ft_lanes_total(lanes);
    }
}
