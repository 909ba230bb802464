/* Convolution in little memory, one sample at a time: bands of rows in place of a padded copy of the whole input.
 *
 * The same taps in the same order as conv.h, so the same bits; slower, since each tap's place is worked out again for every
 * row. Forward and input gradient may write over their input where ft_lean_in_place says so. */
#ifndef FT_LEAN_H
#define FT_LEAN_H

#include "conv.h"

bool ft_lean_in_place(const ft_conv *c); /* y may be x, and dx (not accumulated) may be dy */
uint32_t ft_lean_forward_scratch(const ft_conv *c); /* floats */
uint32_t ft_lean_input_scratch(const ft_conv *c);   /* floats for the input gradient */
uint32_t ft_lean_channels(const ft_conv *c);        /* input channels that one call for weights should bring */
uint32_t ft_lean_weight_scratch(const ft_conv *c);  /* floats for the weight gradient of so many channels */

void ft_lean_forward(float *y, const float *x, const ft_taps *taps, const float *bias, const ft_conv *c, float *scratch);
void ft_lean_backward_input(float *dx, const float *dy, const ft_taps *taps, const ft_conv *c, float *scratch,
                            bool accumulate);
/* Adds the gradient of the weights that read the input channels [first, first + count); x: those channels alone. */
void ft_lean_backward_weight(float *dw, const float *dy, const float *x, const ft_taps *taps, const ft_conv *c,
                             uint32_t first, uint32_t count, float *scratch);

#endif
