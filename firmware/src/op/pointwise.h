/* ReLU, ReLU6, a norm's last step, residual add and the step of SGD over n floats. y may be x; dx may be dy.
 * pointwise.c is portable C; pointwise_m4.c gives the same bits on Cortex-M with DSP instructions and an FPU. */
#ifndef FT_POINTWISE_H
#define FT_POINTWISE_H

#include <stdbool.h>
#include <stdint.h>

/* limit: 6, or infinity; NaN passes through, -0 becomes 0 */
void ft_relu_forward(float *y, const float *x, float limit, uint32_t n);
void ft_relu_backward(float *dx, const float *dy, const float *y, float limit, uint32_t n, bool accumulate);
void ft_scale_run(float *y, const float *x, float mean, float scale, float shift, uint32_t n); /* (x - mean) scale + shift */
void ft_add_forward(float *y, const float *a, const float *b, uint32_t n);
void ft_copy_gradient(float *dx, const float *dy, uint32_t n, bool accumulate); /* backward of add and of flatten */

/* Largest of windows of 2 x 2 side by side: `rows` rows of n windows over rows of `width` floats. NaN wins over all, the
 * first of equals over the others. Backward writes all four of each window; NaN in x is no longer looked for. */
void ft_halves_forward(float *y, const float *x, uint32_t width, uint32_t n, uint32_t rows);
void ft_halves_backward(float *dx, const float *dy, const float *x, uint32_t width, uint32_t n, uint32_t rows);

/* m = momentum m + (g + decay w);  w = w - rate m: torch.optim.SGD without dampening. g is lost. */
void ft_sgd_step(float *w, float *g, float *m, float rate, float momentum, float decay, uint32_t n);

#endif
