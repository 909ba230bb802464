/* Taps on Cortex-M: taps.h's walks for inputs whose positions count in steps of `stride` bytes. Floats' own step is 4; the
 * samples of a batch side by side make it 4 n. */
#ifndef FT_TAPS_M4_H
#define FT_TAPS_M4_H

#include "taps.h"

void ft_m4_forward(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,
                   const ft_grid *g, uint32_t stride);
void ft_m4_backward_input(float *dx, const float *dy, const float *w, const uint16_t *at, uint32_t taps, const ft_grid *g,
                          uint32_t stride);
void ft_m4_backward_weight(float *dw, const float *dy, const float *x, const uint16_t *at, uint32_t taps, const ft_grid *g,
                           uint32_t stride);

#endif
