/* Max pooling that remembers which cell of each window won, one byte an output: backward then needs neither input nor
 * output, and a ReLU in front of it keeps nothing. */
#ifndef FT_PICK_H
#define FT_PICK_H

#include "pool.h"

enum { FT_PICK_NONE = 255 }; /* the winner passes no gradient on */

static inline bool ft_pick_fits(uint32_t kh, uint32_t kw) { return kh * kw <= FT_PICK_NONE; }

/* picks (maps, HO, WO): the cell, row by row in the window, whose value ft_pool_max_forward takes. relu: x comes from a ReLU
 * with this limit and nothing else reads it; then winners that are 0 or at the limit are FT_PICK_NONE. */
void ft_pick_forward(uint8_t *picks, const float *x, const ft_pool *p, uint32_t maps, bool relu, float limit);
void ft_pick_backward(float *dx, const float *dy, const uint8_t *picks, const ft_pool *p, uint32_t maps, bool accumulate);

#endif
