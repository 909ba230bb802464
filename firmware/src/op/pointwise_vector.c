/* pointwise.h for hosts, eight floats at a time and without branches that depend on data: the bits of pointwise.c. */
#include "pointwise.h"

#include <math.h>

#include "vector.h"

FT_TARGETS void ft_relu_forward(float *y, const float *x, float limit, uint32_t n)
{
    const v8 zero = splat(0.0f), most = splat(limit);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        v8 v = load(x + i);
        v = only(v, ~(v8i)(v <= zero));
        store(y + i, choose(v > most, most, v));
    }
    for (; i < n; i++) {
        float v = x[i] <= 0.0f ? 0.0f : x[i];
        y[i] = v > limit ? limit : v;
    }
}

FT_TARGETS void ft_relu_backward(float *dx, const float *dy, const float *y, float limit, uint32_t n, bool accumulate)
{
    const v8 zero = splat(0.0f), most = splat(limit);
    const bool open = limit == INFINITY;
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const v8 v = load(y + i);
        v8i passes = (v8i)(v > zero);
        if (!open)
            passes &= (v8i)(v < most);
        const v8 g = only(load(dy + i), passes);
        store(dx + i, accumulate ? load(dx + i) + g : g);
    }
    for (; i < n; i++) {
        float g = y[i] > 0.0f && (open || y[i] < limit) ? dy[i] : 0.0f;
        dx[i] = accumulate ? dx[i] + g : g;
    }
}

FT_TARGETS void ft_scale_run(float *y, const float *x, float mean, float scale, float shift, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * scale + shift;
}

FT_TARGETS void ft_add_forward(float *y, const float *a, const float *b, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        store(y + i, load(a + i) + load(b + i));
    for (; i < n; i++)
        y[i] = a[i] + b[i];
}

void ft_copy_gradient(float *dx, const float *dy, uint32_t n, bool accumulate)
{
    if (accumulate)
        ft_add_forward(dx, dx, dy, n);
    else if (dx != dy)
        memmove(dx, dy, n * sizeof *dx);
}

FT_INLINE float largest_of_four(const float *top, const float *bottom)
{
    const float a = top[0], b = top[1], c = bottom[0], d = bottom[1], sum = (a + b) + (c + d);
    float best = b > a ? b : a;
    best = c > best ? c : best;
    best = d > best ? d : best;
    return sum == sum ? best : a != a ? a : b != b ? b : c != c ? c : d != d ? d : best;
}

#if defined(__clang__) || __GNUC__ >= 12
#define PICK(p, q, ...) __builtin_shufflevector(p, q, __VA_ARGS__)
#else
#define PICK(p, q, ...) __builtin_shuffle(p, q, (v8i){__VA_ARGS__})
#endif
/* Columns 0, 2, 4, … and 1, 3, 5, … of sixteen, and back. */
#define EVENS(p, q) PICK(p, q, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODDS(p, q) PICK(p, q, 1, 3, 5, 7, 9, 11, 13, 15)
#define LOW_PAIRS(p, q) PICK(p, q, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH_PAIRS(p, q) PICK(p, q, 4, 12, 5, 13, 6, 14, 7, 15)

FT_INLINE void eight_forward(float *y, const float *x, uint32_t width)
{
    const v8 t0 = load(x), t1 = load(x + 8), b0 = load(x + width), b1 = load(x + width + 8);
    const v8 a = EVENS(t0, t1), b = ODDS(t0, t1), c = EVENS(b0, b1), d = ODDS(b0, b1);
    v8 best = choose((v8i)(b > a), b, a);
    best = choose((v8i)(c > best), c, best);
    best = choose((v8i)(d > best), d, best);
    best = choose((v8i)(d != d), d, best); /* the first NaN comes last */
    best = choose((v8i)(c != c), c, best);
    best = choose((v8i)(b != b), b, best);
    store(y, choose((v8i)(a != a), a, best));
}

FT_INLINE void eight_backward(float *dx, v8 g, const float *x, uint32_t width)
{
    const v8 t0 = load(x), t1 = load(x + 8), b0 = load(x + width), b1 = load(x + width + 8);
    const v8 a = EVENS(t0, t1), b = ODDS(t0, t1), c = EVENS(b0, b1), d = ODDS(b0, b1);
    const v8i at_b = (v8i)(b > a);
    v8 best = choose(at_b, b, a);
    const v8i at_c = (v8i)(c > best);
    best = choose(at_c, c, best);
    const v8i at_d = (v8i)(d > best);
    const v8 ga = only(g, ~(at_b | at_c | at_d)), gb = only(g, at_b & ~(at_c | at_d)), gc = only(g, at_c & ~at_d);
    const v8 gd = only(g, at_d);
    store(dx, LOW_PAIRS(ga, gb));
    store(dx + 8, HIGH_PAIRS(ga, gb));
    store(dx + width, LOW_PAIRS(gc, gd));
    store(dx + width + 8, HIGH_PAIRS(gc, gd));
}

/* The last eight windows of a row may be some that are done already. Short rows without a gap are done as if they were
 * eight windows long: what that writes too much, the next row writes again. */
static bool overlaps(uint32_t width, uint32_t n, uint32_t rows) { return n < 8 && n >= 4 && width == 2 * n && rows > 1; }

FT_TARGETS void ft_halves_forward(float *y, const float *x, uint32_t width, uint32_t n, uint32_t rows)
{
    for (; rows; rows--, x += 2 * width, y += n) {
        uint32_t i = 0;
        for (; i + 8 <= n; i += 8)
            eight_forward(y + i, x + 2 * i, width);
        if (i < n && n >= 8) {
            eight_forward(y + n - 8, x + 2 * (n - 8), width);
            continue;
        }
        if (overlaps(width, n, rows)) {
            eight_forward(y, x, width);
            continue;
        }
        for (; i < n; i++)
            y[i] = largest_of_four(x + 2 * i, x + width + 2 * i);
    }
}

FT_TARGETS void ft_halves_backward(float *dx, const float *dy, const float *x, uint32_t width, uint32_t n, uint32_t rows)
{
    for (; rows; rows--, x += 2 * width, dx += 2 * width, dy += n) {
        uint32_t i = 0;
        for (; i + 8 <= n; i += 8)
            eight_backward(dx + 2 * i, load(dy + i), x + 2 * i, width);
        if (i < n && n >= 8) {
            eight_backward(dx + 2 * (n - 8), load(dy + n - 8), x + 2 * (n - 8), width);
            continue;
        }
        if (overlaps(width, n, rows)) {
            eight_backward(dx, load(dy), x, width);
            continue;
        }
        for (; i < n; i++) {
            const float *w = x + 2 * i;
            float *to = dx + 2 * i, best = w[0];
            uint32_t at = 0;
            at = w[1] > best ? 1 : at;
            best = w[1] > best ? w[1] : best;
            at = w[width] > best ? width : at;
            best = w[width] > best ? w[width] : best;
            at = w[width + 1] > best ? width + 1 : at;
            to[0] = to[1] = to[width] = to[width + 1] = 0.0f;
            to[at] = dy[i];
        }
    }
}

FT_TARGETS void ft_sgd_step(float *restrict w, float *restrict g, float *restrict m, float rate, float momentum,
                            float decay, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        m[i] = momentum * m[i] + (g[i] + decay * w[i]);
        w[i] = w[i] - rate * m[i];
    }
}
