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

/* y = gamma (x - mean) / sqrt(var + eps) + beta with the micro-batch's own biased variance. sum and m2 (C each; both NULL:
 * not wanted) take in this micro-batch's moments: `seen` elements per channel are already in them. y may be x. */
void ft_norm_batch_forward(float *y, const float *x, const float *gamma, const float *beta, const ft_norm *n,
                           uint32_t batch, float *kept, float *sum, float *m2, uint32_t seen);
void ft_norm_batch_backward(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x, const float *gamma,
                            const ft_norm *n, uint32_t batch, const float *kept, bool accumulate);

/* The same with given statistics, which count as constants. In every backward, dx or (dgamma and dbeta) may be NULL. */
void ft_norm_frozen_forward(float *y, const float *x, const float *gamma, const float *beta, const float *mean,
                            const float *var, const ft_norm *n, uint32_t batch, float *kept);
void ft_norm_frozen_backward(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x, const float *gamma,
                             const ft_norm *n, uint32_t batch, const float *kept, bool accumulate);

void ft_norm_group_forward(float *y, const float *x, const float *gamma, const float *beta, const ft_norm *n,
                           uint32_t batch, float *kept);
void ft_norm_group_backward(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x, const float *gamma,
                            const ft_norm *n, uint32_t batch, const float *kept, bool accumulate);

/* The two steps of group norm's backward, one channel (pixels) of a group at a time; kept: the group's pair. */
typedef struct {
    float plain, centred; /* of gamma dy and gamma dy (x - mean), over the group */
} ft_norm_sums;

void ft_norm_group_sum(ft_norm_sums *sums, float *dgamma, float *dbeta, const float *dy, const float *x, float gamma,
                       uint32_t pixels, const float *kept);
void ft_norm_group_gradient(float *dx, const float *dy, const float *x, ft_norm_sums sums, float gamma, const ft_norm *n,
                            const float *kept, bool accumulate);

#endif
