/* Weight standardisation (arXiv 1903.10520): each output channel's weights with mean 0 and variance 1.
 *
 * w_hat = (w - mean) / sqrt(var + eps), with the biased variance. Mean and variance are those of the channel's weights that
 * are not 0; a weight of 0 takes no part and stays 0, whether a mask, a threshold or growth made it so. */
#ifndef FT_STANDARD_H
#define FT_STANDARD_H

#include "conv.h"

/* One output channel: its moments, and what the gradient of w_hat adds up to over the weights that take part. */
typedef struct {
    float mean, scale, count;
    float plain, along; /* of g and of g w_hat */
} ft_standard;

/* out: as many floats as the taps have values */
void ft_standard_forward(float *out, const ft_taps *taps, uint32_t rows, uint32_t row_len, float eps);
/* dw: the gradient of w_hat becomes that of w. A weight of 0 gets the gradient that it would have if it took part. */
void ft_standard_backward(float *dw, const ft_taps *taps, uint32_t rows, uint32_t row_len, float eps);

/* The steps of backward, for a channel whose weights lie elsewhere than its gradients. */
ft_standard ft_standard_of(const float *w, uint32_t count, float eps);
void ft_standard_add(ft_standard *s, float w, float g);
float ft_standard_gradient(const ft_standard *s, float w, float g);

#endif
