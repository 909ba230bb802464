#include "pool.h"

#include "pointwise.h"
#include "taps.h"

/* The part of a window that lies on the map, and how many cells count for an average. */
typedef struct {
    uint32_t y0, y1, x0, x1, cells;
} window;

static window window_at(const ft_pool *p, uint32_t oy, uint32_t ox)
{
    uint32_t top = oy * p->sh, left = ox * p->sw, bottom = top + p->kh, right = left + p->kw;
    window v;
    v.y0 = top > p->pt ? top - p->pt : 0;
    v.x0 = left > p->pl ? left - p->pl : 0;
    v.y1 = bottom - p->pt < p->h ? bottom - p->pt : p->h;
    v.x1 = right - p->pl < p->w ? right - p->pl : p->w;
    v.cells = p->count_pad ? p->kh * p->kw : (v.y1 - v.y0) * (v.x1 - v.x0);
    return v;
}

static uint32_t largest(const float *x, const window *v, uint32_t width)
{
    uint32_t best = v->y0 * width + v->x0;
    for (uint32_t y = v->y0; y < v->y1; y++)
        for (uint32_t i = y * width + v->x0; i < y * width + v->x1; i++)
            if (x[i] > x[best] || (x[i] != x[i] && x[best] == x[best]))
                best = i;
    return best;
}

/* Windows of 2 x 2, side by side, whole on the map: what most nets have. */
static bool halves(const ft_pool *p)
{
    return p->kh == 2 && p->kw == 2 && p->sh == 2 && p->sw == 2 && p->pt == 0 && p->pl == 0 && 2 * p->ho <= p->h
           && 2 * p->wo <= p->w;
}

static void halve_forward(float *y, const float *x, const ft_pool *p, uint32_t maps)
{
    if (p->h == 2 * p->ho) {
        ft_halves_forward(y, x, p->w, p->wo, maps * p->ho);
        return;
    }
    for (uint32_t m = 0; m < maps; m++, x += p->h * p->w, y += p->ho * p->wo)
        ft_halves_forward(y, x, p->w, p->wo, p->ho);
}

static void halve_backward(float *dx, const float *dy, const float *x, const ft_pool *p, uint32_t maps)
{
    if (p->h == 2 * p->ho && p->w == 2 * p->wo) {
        ft_halves_backward(dx, dy, x, p->w, p->wo, maps * p->ho);
        return;
    }
    ft_zero(dx, maps * p->h * p->w);
    for (uint32_t m = 0; m < maps; m++, x += p->h * p->w, dx += p->h * p->w, dy += p->ho * p->wo)
        ft_halves_backward(dx, dy, x, p->w, p->wo, p->ho);
}

void ft_pool_max_forward(float *y, const float *x, const ft_pool *p, uint32_t maps)
{
    if (halves(p)) {
        halve_forward(y, x, p, maps);
        return;
    }
    for (uint32_t m = 0; m < maps; m++, x += p->h * p->w)
        for (uint32_t oy = 0; oy < p->ho; oy++)
            for (uint32_t ox = 0; ox < p->wo; ox++) {
                window v = window_at(p, oy, ox);
                *y++ = x[largest(x, &v, p->w)];
            }
}

void ft_pool_max_backward(float *dx, const float *dy, const float *x, const ft_pool *p, uint32_t maps, bool accumulate)
{
    if (halves(p) && !accumulate) {
        halve_backward(dx, dy, x, p, maps);
        return;
    }
    if (!accumulate)
        ft_zero(dx, maps * p->h * p->w);
    for (uint32_t m = 0; m < maps; m++, x += p->h * p->w, dx += p->h * p->w)
        for (uint32_t oy = 0; oy < p->ho; oy++)
            for (uint32_t ox = 0; ox < p->wo; ox++) {
                window v = window_at(p, oy, ox);
                dx[largest(x, &v, p->w)] += *dy++;
            }
}

void ft_pool_average_forward(float *y, const float *x, const ft_pool *p, uint32_t maps)
{
    for (uint32_t m = 0; m < maps; m++, x += p->h * p->w)
        for (uint32_t oy = 0; oy < p->ho; oy++)
            for (uint32_t ox = 0; ox < p->wo; ox++) {
                window v = window_at(p, oy, ox);
                float sum = 0.0f;
                for (uint32_t row = v.y0; row < v.y1; row++)
                    for (uint32_t i = row * p->w + v.x0; i < row * p->w + v.x1; i++)
                        sum += x[i];
                *y++ = sum / (float)v.cells;
            }
}

void ft_pool_average_backward(float *dx, const float *dy, const ft_pool *p, uint32_t maps, bool accumulate)
{
    if (!accumulate)
        ft_zero(dx, maps * p->h * p->w);
    for (uint32_t m = 0; m < maps; m++, dx += p->h * p->w)
        for (uint32_t oy = 0; oy < p->ho; oy++)
            for (uint32_t ox = 0; ox < p->wo; ox++) {
                window v = window_at(p, oy, ox);
                float share = *dy++ / (float)v.cells;
                for (uint32_t row = v.y0; row < v.y1; row++)
                    for (uint32_t i = row * p->w + v.x0; i < row * p->w + v.x1; i++)
                        dx[i] += share;
            }
}
