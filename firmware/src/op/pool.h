/* Max and average pooling over `maps` planes (H, W) -> (HO, WO); global pooling is a window as large as the map.
 * Maximum: the first of equal inputs wins, NaN wins over all, and backward finds it again from x, so no indices are kept. */
#ifndef FT_POOL_H
#define FT_POOL_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t h, w, ho, wo, kh, kw, sh, sw, pt, pl;
    bool count_pad; /* average: padding counts in the divisor */
} ft_pool;

void ft_pool_max_forward(float *y, const float *x, const ft_pool *p, uint32_t maps);
void ft_pool_max_backward(float *dx, const float *dy, const float *x, const ft_pool *p, uint32_t maps, bool accumulate);
void ft_pool_average_forward(float *y, const float *x, const ft_pool *p, uint32_t maps);
void ft_pool_average_backward(float *dx, const float *dy, const ft_pool *p, uint32_t maps, bool accumulate);

#endif
