/* The linear layer's part of taps.h for hosts: the bits of columns.c. */
#include "taps.h"

#include "vector.h"

FT_INLINE float one_output(const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias, uint32_t n)
{
    for (uint32_t k = 0; k < taps; k++)
        bias += w[k] * x[(uint32_t)at[k] * n];
    return bias;
}

FT_TARGETS void ft_columns_forward(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps,
                                   float bias, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32) {
        v8 a = splat(bias), b = a, c = a, d = a;
        for (uint32_t k = 0; k < taps; k++) {
            const float *run = x + (uint32_t)at[k] * n + i;
            const v8 weight = splat(w[k]);
            a += weight * load(run);
            b += weight * load(run + 8);
            c += weight * load(run + 16);
            d += weight * load(run + 24);
        }
        store(y + i, a);
        store(y + i + 8, b);
        store(y + i + 16, c);
        store(y + i + 24, d);
    }
    for (; i + 8 <= n; i += 8) {
        v8 a = splat(bias);
        for (uint32_t k = 0; k < taps; k++)
            a += splat(w[k]) * load(x + (uint32_t)at[k] * n + i);
        store(y + i, a);
    }
    for (; i < n; i++)
        y[i] = one_output(x + i, w, at, taps, bias, n);
}

FT_TARGETS void ft_columns_backward_input(float *dx, const float *dy, const float *w, const uint16_t *at, uint32_t taps,
                                          uint32_t n)
{
    for (uint32_t k = 0; k < taps; k++) {
        float *run = dx + (uint32_t)at[k] * n;
        const float weight = w[k];
        uint32_t i = 0;
        for (; i + 8 <= n; i += 8)
            store(run + i, load(run + i) + splat(weight) * load(dy + i));
        for (; i < n; i++)
            run[i] += weight * dy[i];
    }
}

FT_TARGETS void ft_columns_backward_weight(float *dw, const float *dy, const float *x, const uint16_t *at, uint32_t taps,
                                           uint32_t n)
{
    if (n == 1) {
        const float grad = *dy;
        for (uint32_t k = 0; k < taps; k++)
            dw[k] += grad * x[at[k]];
        return;
    }
    for (uint32_t k = 0; k < taps; k++) {
        const float *run = x + (uint32_t)at[k] * n;
        float lanes[FT_LANES];
        v8 sum = splat(0.0f);
        uint32_t i = 0;
        for (; i + 8 <= n; i += 8)
            sum += load(dy + i) * load(run + i);
        store(lanes, sum);
        for (uint32_t j = 0; i < n; i++, j++)
            lanes[j] += dy[i] * run[i];
        dw[k] += ft_lanes_total(lanes);
    }
}
