/* ReLU, ReLU6 and residual add over n floats, forward and backward. y may be x; dx may be dy. */
#ifndef FT_POINTWISE_H
#define FT_POINTWISE_H

#include <stdbool.h>
#include <stdint.h>

void ft_relu_forward(float *y, const float *x, float limit, uint32_t n); /* limit: 6, or infinity; NaN passes through */
void ft_relu_backward(float *dx, const float *dy, const float *y, float limit, uint32_t n, bool accumulate);
void ft_add_forward(float *y, const float *a, const float *b, uint32_t n);
void ft_copy_gradient(float *dx, const float *dy, uint32_t n, bool accumulate); /* backward of add and of flatten */

#endif
