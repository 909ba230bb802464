/* Batch norm and group norm, forward and backward. Tensors (B, C, pixels).
 *
 * Each keeps (mean, 1 / sqrt(var + eps)) pairs from forward to backward: C pairs for batch norm, B x G for group norm. */
#ifndef FT_NORM_H
#define FT_NORM_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t channels, pixels, groups; /* groups: group norm only */
    float eps;
} ft_norm;

/* y = gamma (x - mean) / sqrt(var + eps) + beta. given: means, then variances, which count as constants; NULL: the
 * micro-batch's own, with the biased variance, and then sum and m2 (C each; both NULL: not wanted) take in its moments: `seen`
 * elements per channel are already in them. y may be x. */
void ft_norm_batch_forward(float *y, const float *x, const float *gamma, const float *beta, const ft_norm *n,
                           uint32_t batch, float *kept, const float *given, float *sum, float *m2, uint32_t seen);
void ft_norm_group_forward(float *y, const float *x, const float *gamma, const float *beta, const ft_norm *n,
                           uint32_t batch, float *kept);

/* y = (x - mean) (gamma scale) + beta over one run; kept: (mean, scale). */
void ft_norm_run(float *y, const float *x, const float *kept, float gamma, float beta, uint32_t n);

/* One channel for backward: `runs` samples of `pixels` floats. dx NULL: not wanted; it may be dy. */
typedef struct {
    float *dx;
    const float *dy, *x;
    uint32_t stride, x_stride; /* from one sample's run to the next: of dx and dy, of x */
    uint32_t pixels, runs;
    bool accumulate;
} ft_norm_channel;

/* Of the channel that the pointers point at; dgamma and dbeta may be NULL. kept: the channel's pair. */
void ft_norm_batch_backward(const ft_norm_channel *c, float *dgamma, float *dbeta, float gamma, const float *kept,
                            bool constant);

/* The two steps of group norm: the sums over a group's channels (they add up), then each channel's gradient. kept: the group's
 * pair; count: elements of the group. */
typedef struct {
    float plain, centred; /* of gamma dy and gamma dy (x - mean) */
} ft_norm_sums;

void ft_norm_group_sum(ft_norm_sums *sums, const ft_norm_channel *c, float *dgamma, float *dbeta, float gamma,
                       const float *kept);
void ft_norm_group_gradient(const ft_norm_channel *c, ft_norm_sums sums, float gamma, const float *kept, uint32_t count);

#endif
