#include "pick.h"

#include <string.h>

/* Windows may hang over the border: cells outside are passed over. Unsigned wrap makes "above the top" a large number. */
void ft_pick_forward(uint8_t *picks, const float *x, const ft_pool *p, uint32_t maps, bool relu, float limit)
{
    for (uint32_t m = 0; m < maps; m++, x += p->h * p->w)
        for (uint32_t oy = 0; oy < p->ho; oy++)
            for (uint32_t ox = 0; ox < p->wo; ox++) {
                uint32_t best = 0;
                float top = 0.0f;
                bool any = false;
                for (uint32_t ky = 0; ky < p->kh; ky++)
                    for (uint32_t kx = 0; kx < p->kw; kx++) {
                        uint32_t iy = oy * p->sh + ky - p->pt, ix = ox * p->sw + kx - p->pl;
                        if (iy >= p->h || ix >= p->w)
                            continue;
                        float v = x[iy * p->w + ix];
                        if (!any || v > top || v != v) {
                            best = ky * p->kw + kx;
                            top = v;
                            any = true;
                        }
                    }
                *picks++ = relu && !(top > 0.0f && top < limit) ? FT_PICK_NONE : (uint8_t)best;
            }
}

void ft_pick_backward(float *dx, const float *dy, const uint8_t *picks, const ft_pool *p, uint32_t maps, bool accumulate)
{
    if (!accumulate)
        memset(dx, 0, maps * p->h * p->w * sizeof *dx);
    for (uint32_t m = 0; m < maps; m++, dx += p->h * p->w)
        for (uint32_t oy = 0; oy < p->ho; oy++)
            for (uint32_t ox = 0; ox < p->wo; ox++) {
                uint32_t cell = *picks++, iy = oy * p->sh + cell / p->kw - p->pt, ix = ox * p->sw + cell % p->kw - p->pl;
                float d = *dy++;
                if (cell != FT_PICK_NONE)
                    dx[iy * p->w + ix] += d;
            }
}
