/* Max and average pooling over `maps` planes (H, W) -> (HO, WO); global pooling is a window as large as the map.
 * Maximum: the first of equal inputs wins, NaN wins over all, and backward finds it again from x, so no indices are kept;
 * or else picks are kept, one byte an output, and backward needs neither input nor output. */
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

enum { FT_POOL_NO_PICK = 255 }; /* the winner passes no gradient on */

static inline bool ft_pool_can_pick(uint32_t kh, uint32_t kw) { return kh * kw <= FT_POOL_NO_PICK; }

/* picks (maps, HO, WO): the cell, row by row in the window, whose value ft_pool_max_forward takes. relu: x comes from a ReLU
 * with this limit and nothing else reads it; then winners that are 0 or at the limit are no picks: the ReLU keeps nothing. */
void ft_pool_pick_forward(uint8_t *picks, const float *x, const ft_pool *p, uint32_t maps, bool relu, float limit);
void ft_pool_pick_backward(float *dx, const float *dy, const uint8_t *picks, const ft_pool *p, uint32_t maps,
                           bool accumulate);

#endif
