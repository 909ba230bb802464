#include "pointwise.h"

#include <string.h>

void ft_relu_forward(float *y, const float *x, float limit, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float v = x[i] < 0.0f ? 0.0f : x[i];
        y[i] = v > limit ? limit : v;
    }
}

void ft_relu_backward(float *dx, const float *dy, const float *y, float limit, uint32_t n, bool accumulate)
{
    for (uint32_t i = 0; i < n; i++) {
        float g = y[i] > 0.0f && y[i] < limit ? dy[i] : 0.0f;
        dx[i] = accumulate ? dx[i] + g : g;
    }
}

void ft_add_forward(float *y, const float *a, const float *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

void ft_copy_gradient(float *dx, const float *dy, uint32_t n, bool accumulate)
{
    if (accumulate)
        for (uint32_t i = 0; i < n; i++)
            dx[i] += dy[i];
    else if (dx != dy)
        memmove(dx, dy, n * sizeof *dx);
}
