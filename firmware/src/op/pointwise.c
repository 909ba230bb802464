#include "pointwise.h"

#include <math.h>
#include <string.h>

void ft_relu_forward(float *y, const float *x, float limit, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float v = x[i] <= 0.0f ? 0.0f : x[i];
        y[i] = v > limit ? limit : v;
    }
}

void ft_relu_backward(float *dx, const float *dy, const float *y, float limit, uint32_t n, bool accumulate)
{
    const bool open = limit == INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        float g = y[i] > 0.0f && (open || y[i] < limit) ? dy[i] : 0.0f;
        dx[i] = accumulate ? dx[i] + g : g;
    }
}

void ft_scale_run(float *y, const float *x, float mean, float scale, float shift, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * scale + shift;
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

void ft_halves_forward(float *y, const float *x, uint32_t width, uint32_t n, uint32_t rows)
{
    for (uint32_t r = 0; r < rows; r++, x += 2 * width)
        for (uint32_t i = 0; i < n; i++) {
            const float a = x[2 * i], b = x[2 * i + 1], c = x[width + 2 * i], d = x[width + 2 * i + 1];
            const float sum = (a + b) + (c + d);
            float best = a;
            best = b > best ? b : best;
            best = c > best ? c : best;
            best = d > best ? d : best;
            if (sum != sum) /* a NaN, or infinities of both signs */
                best = a != a ? a : b != b ? b : c != c ? c : d != d ? d : best;
            *y++ = best;
        }
}

void ft_halves_backward(float *dx, const float *dy, const float *x, uint32_t width, uint32_t n, uint32_t rows)
{
    for (uint32_t r = 0; r < rows; r++, x += 2 * width, dx += 2 * width)
        for (uint32_t i = 0; i < n; i++) {
            const float *w = x + 2 * i;
            float *to = dx + 2 * i, best = w[0];
            uint32_t at = 0;
            at = w[1] > best ? 1 : at;
            best = w[1] > best ? w[1] : best;
            at = w[width] > best ? width : at;
            best = w[width] > best ? w[width] : best;
            at = w[width + 1] > best ? width + 1 : at;
            to[0] = to[1] = to[width] = to[width + 1] = 0.0f;
            to[at] = *dy++;
        }
}

void ft_sgd_step(float *w, float *g, float *m, float rate, float momentum, float decay, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        m[i] = momentum * m[i] + (g[i] + decay * w[i]);
        w[i] = w[i] - rate * m[i];
    }
}
