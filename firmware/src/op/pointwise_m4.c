/* pointwise.h for Cortex-M with DSP instructions and a single precision FPU: whole blocks in taps_m4.S, the rest here. */
#include "pointwise.h"

#include <math.h>

#include "taps.h"

void ft_m4_relu(float *y, const float *x, uint32_t n);
void ft_m4_relu_backward(float *dx, const float *dy, const float *y, uint32_t n);
void ft_m4_add(float *y, const float *a, const float *b, uint32_t n);
void ft_m4_sgd(float *w, float *g, float *m, uint32_t n, float rate, float momentum, float decay);

void ft_relu_forward(float *y, const float *x, float limit, uint32_t n)
{
    uint32_t whole = n - n % 5;
    if (whole)
        ft_m4_relu(y, x, whole);
    for (uint32_t i = whole; i < n; i++)
        y[i] = x[i] <= 0.0f ? 0.0f : x[i];
    if (limit != INFINITY)
        for (uint32_t i = 0; i < n; i++)
            if (y[i] > limit)
                y[i] = limit;
}

void ft_relu_backward(float *dx, const float *dy, const float *y, float limit, uint32_t n, bool accumulate)
{
    uint32_t whole = accumulate || limit != INFINITY ? 0 : n - n % 4;
    if (whole)
        ft_m4_relu_backward(dx, dy, y, whole);
    for (uint32_t i = whole; i < n; i++) {
        float g = y[i] > 0.0f && (limit == INFINITY || y[i] < limit) ? dy[i] : 0.0f;
        dx[i] = accumulate ? dx[i] + g : g;
    }
}

void ft_add_forward(float *y, const float *a, const float *b, uint32_t n)
{
    uint32_t whole = n - n % 8;
    if (whole)
        ft_m4_add(y, a, b, whole);
    for (uint32_t i = whole; i < n; i++)
        y[i] = a[i] + b[i];
}

void ft_copy_gradient(float *dx, const float *dy, uint32_t n, bool accumulate)
{
    if (accumulate)
        ft_add_forward(dx, dx, dy, n);
    else if (dx != dy)
        ft_rows_copy(dx, n, dy, n, 1, n);
}

void ft_sgd_step(float *w, float *g, float *m, float rate, float momentum, float decay, uint32_t n)
{
    uint32_t whole = n - n % 8;
    if (whole)
        ft_m4_sgd(w, g, m, whole, rate, momentum, decay);
    for (uint32_t i = whole; i < n; i++) {
        m[i] = momentum * m[i] + (g[i] + decay * w[i]);
        w[i] = w[i] - rate * m[i];
    }
}
