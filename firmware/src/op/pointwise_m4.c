/* pointwise.h for Cortex-M with DSP instructions and a single precision FPU: what is most common in taps_m4.S, the rest here. */
#include "pointwise.h"

#include <math.h>

#include "taps.h"

void ft_m4_relu(float *y, const float *x, uint32_t n);
void ft_m4_relu_backward(float *dx, const float *dy, const float *y, uint32_t n);

void ft_relu_forward(float *y, const float *x, float limit, uint32_t n)
{
    ft_m4_relu(y, x, n);
    for (uint32_t i = 0; limit != INFINITY && i < n; i++)
        if (y[i] > limit)
            y[i] = limit;
}

void ft_relu_backward(float *dx, const float *dy, const float *y, float limit, uint32_t n, bool accumulate)
{
    if (!accumulate && limit == INFINITY) {
        ft_m4_relu_backward(dx, dy, y, n);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        float g = y[i] > 0.0f && (limit == INFINITY || y[i] < limit) ? dy[i] : 0.0f;
        dx[i] = accumulate ? dx[i] + g : g;
    }
}

void ft_copy_gradient(float *dx, const float *dy, uint32_t n, bool accumulate)
{
    if (accumulate)
        ft_add_forward(dx, dx, dy, n);
    else if (dx != dy)
        ft_rows_copy(dx, n, dy, n, 1, n);
}
