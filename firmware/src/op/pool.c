#include "pool.h"

#include "pointwise.h"
#include "taps.h"

/* Windows of 2 x 2, side by side, whole on the map: what most nets have. */
static bool halves(const ft_pool *p)
{
    return p->kh == 2 && p->kw == 2 && p->sh == 2 && p->sw == 2 && p->pt == 0 && p->pl == 0 && 2 * p->ho <= p->h
           && 2 * p->wo <= p->w;
}

/* One walk over all windows serves every kind of pooling: which arrays there are says what is done with each window. Those of
 * maps are met at its cells, the others hold one element a window. */
typedef struct {
    const float *x, *dy;
    float *dx, *y;
    uint8_t *picks;
    const uint8_t *picked;
    float limit; /* picks: of the ReLU in front; negative: there is none */
    bool average;
} work;

static void walk(const ft_pool *p, uint32_t maps, work t)
{
    const float *x = t.x;
    const bool average = t.average;
    for (uint32_t m = 0, map = 0; m < maps; m++, map += p->h * p->w)
        for (uint32_t oy = 0; oy < p->ho; oy++)
            for (uint32_t ox = 0; ox < p->wo; ox++) {
                /* the window's first cell wraps to a large number outside of the map; what lies on it is y0 to y1, x0 to x1 */
                uint32_t top = oy * p->sh - p->pt, left = ox * p->sw - p->pl;
                uint32_t y0 = top < p->h ? top : 0, y1 = top + p->kh < p->h ? top + p->kh : p->h;
                uint32_t x0 = left < p->w ? left : 0, x1 = left + p->kw < p->w ? left + p->kw : p->w;
                uint32_t best = map + y0 * p->w + x0;
                float sum = 0.0f, cells = (float)(p->count_pad ? p->kh * p->kw : (y1 - y0) * (x1 - x0));
                float d = t.dy ? *t.dy++ : 0.0f;
                if (t.picked) {
                    uint32_t cell = *t.picked++;
                    if (cell != FT_POOL_NO_PICK)
                        t.dx[map + (top + cell / p->kw) * p->w + left + cell % p->kw] += d;
                    continue;
                }
                if (average)
                    d /= cells;
                for (uint32_t row = y0; row < y1; row++)
                    for (uint32_t i = map + row * p->w + x0, n = x1 - x0; n; n--, i++)
                        if (!x)
                            t.dx[i] += d;
                        else if (average)
                            sum += x[i];
                        else if (x[i] > x[best] || (x[i] != x[i] && x[best] == x[best]))
                            best = i;
                if (t.y) {
                    *t.y++ = average ? sum / cells : x[best];
                } else if (t.picks) {
                    bool passes = t.limit < 0.0f || (x[best] > 0.0f && x[best] < t.limit);
                    uint32_t at = best - map, cell = (at / p->w - top) * p->kw + at % p->w - left;
                    *t.picks++ = passes ? (uint8_t)cell : FT_POOL_NO_PICK;
                } else if (x) {
                    t.dx[best] += d;
                }
            }
}

static void start(float *dx, const ft_pool *p, uint32_t maps, bool accumulate)
{
    if (!accumulate)
        ft_zero(dx, maps * p->h * p->w);
}

void ft_pool_max_forward(float *y, const float *x, const ft_pool *p, uint32_t maps)
{
    if (!halves(p)) {
        walk(p, maps, (work){.y = y, .x = x});
        return;
    }
    uint32_t rows = p->h == 2 * p->ho ? maps * p->ho : p->ho; /* without an odd row, all maps are one */
    for (uint32_t m = 0; m < maps * p->ho; m += rows, x += p->h * p->w, y += p->ho * p->wo)
        ft_halves_forward(y, x, p->w, p->wo, rows);
}

void ft_pool_max_backward(float *dx, const float *dy, const float *x, const ft_pool *p, uint32_t maps, bool accumulate)
{
    bool whole = p->h == 2 * p->ho && p->w == 2 * p->wo, quick = halves(p) && !accumulate;
    start(dx, p, maps, accumulate || (quick && whole));
    if (!quick) {
        walk(p, maps, (work){.dx = dx, .dy = dy, .x = x});
        return;
    }
    uint32_t rows = whole ? maps * p->ho : p->ho;
    for (uint32_t m = 0; m < maps * p->ho; m += rows, x += p->h * p->w, dx += p->h * p->w, dy += p->ho * p->wo)
        ft_halves_backward(dx, dy, x, p->w, p->wo, rows);
}

void ft_pool_average_forward(float *y, const float *x, const ft_pool *p, uint32_t maps)
{
    walk(p, maps, (work){.y = y, .x = x, .average = true});
}

void ft_pool_average_backward(float *dx, const float *dy, const ft_pool *p, uint32_t maps, bool accumulate)
{
    start(dx, p, maps, accumulate);
    walk(p, maps, (work){.dx = dx, .dy = dy, .average = true});
}

void ft_pool_pick_forward(uint8_t *picks, const float *x, const ft_pool *p, uint32_t maps, bool relu, float limit)
{
    walk(p, maps, (work){.picks = picks, .x = x, .limit = relu ? limit : -1.0f});
}

void ft_pool_pick_backward(float *dx, const float *dy, const uint8_t *picks, const ft_pool *p, uint32_t maps,
                           bool accumulate)
{
    start(dx, p, maps, accumulate);
    walk(p, maps, (work){.dx = dx, .dy = dy, .picked = picks});
}
