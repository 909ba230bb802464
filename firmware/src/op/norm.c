#include "norm.h"

#include "../num.h"
#include "pointwise.h"
#include "taps.h"

/* Mean and 1 / sqrt(var + eps) of runs `stride` apart; returns the sum of squared differences from the mean. */
static float measure(float kept[2], const float *x, uint32_t runs, uint32_t stride, uint32_t pixels, float eps)
{
    float lanes[FT_LANES] = {0}, squares[FT_LANES] = {0}, count = (float)(runs * pixels);
    for (uint32_t b = 0; b < runs; b++)
        ft_lanes_sum(lanes, x + b * stride, pixels);
    kept[0] = ft_lanes_total(lanes) / count;
    for (uint32_t b = 0; b < runs; b++)
        ft_lanes_squares(squares, x + b * stride, kept[0], pixels);
    float total = ft_lanes_total(squares);
    kept[1] = 1.0f / ft_num_sqrt(total / count + eps);
    return total;
}

void ft_norm_run(float *y, const float *x, const float *kept, float gamma, float beta, uint32_t n)
{
    ft_scale_run(y, x, kept[0], kept[1] * gamma, beta, n);
}

/* Chan's update of (sum, m2) over `seen` elements by a batch of `count` with its own mean and m2. */
static void take_in(float *sum, float *m2, uint32_t seen, float mean, float batch_m2, uint32_t count)
{
    float n = (float)count, before = (float)seen;
    if (seen) {
        float delta = mean - *sum / before;
        *m2 = *m2 + batch_m2 + delta * delta * (before * n / (before + n));
        *sum = *sum + mean * n;
    } else {
        *m2 = batch_m2;
        *sum = mean * n;
    }
}

void ft_norm_batch_forward(float *y, const float *x, const float *gamma, const float *beta, const ft_norm *n,
                           uint32_t batch, float *kept, const float *given, float *sum, float *m2, uint32_t seen)
{
    uint32_t stride = n->channels * n->pixels;
    for (uint32_t c = 0; c < n->channels; c++, kept += 2, x += n->pixels, y += n->pixels) {
        if (given) {
            kept[0] = given[c];
            kept[1] = 1.0f / ft_num_sqrt(given[n->channels + c] + n->eps);
        } else {
            float total = measure(kept, x, batch, stride, n->pixels, n->eps);
            if (sum)
                take_in(sum + c, m2 + c, seen, kept[0], total, batch * n->pixels);
        }
        for (uint32_t b = 0; b < batch; b++)
            ft_norm_run(y + b * stride, x + b * stride, kept, gamma[c], beta[c], n->pixels);
    }
}

void ft_norm_group_forward(float *y, const float *x, const float *gamma, const float *beta, const ft_norm *n,
                           uint32_t batch, float *kept)
{
    uint32_t members = n->channels / n->groups;
    for (uint32_t g = 0; g < batch * n->groups; g++, kept += 2) {
        measure(kept, x, 1, 0, members * n->pixels, n->eps);
        for (uint32_t c = g % n->groups * members, m = 0; m < members; m++, c++, x += n->pixels, y += n->pixels)
            ft_norm_run(y, x, kept, gamma[c], beta[c], n->pixels);
    }
}

/* sum of dy and of dy (x - mean) over a channel */
static ft_norm_sums channel_sums(const ft_norm_channel *c, float *dgamma, float *dbeta, const float *kept)
{
    float lanes[FT_LANES] = {0}, dots[FT_LANES] = {0};
    for (uint32_t b = 0; b < c->runs; b++) {
        ft_lanes_sum(lanes, c->dy + b * c->stride, c->pixels);
        ft_lanes_dot(dots, c->dy + b * c->stride, c->x + b * c->x_stride, kept[0], c->pixels);
    }
    ft_norm_sums sums = {ft_lanes_total(lanes), ft_lanes_total(dots)};
    if (dgamma) {
        *dgamma += sums.centred * kept[1];
        *dbeta += sums.plain;
    }
    return sums;
}

/* dx (+)= scale * dy - centre - (x - mean) * slope over a channel */
static void channel_gradient(const ft_norm_channel *c, float mean, float scale, float centre, float slope)
{
    for (uint32_t b = 0; c->dx && b < c->runs; b++) {
        float *dx = c->dx + b * c->stride;
        const float *dy = c->dy + b * c->stride, *x = c->x + b * c->x_stride;
        for (uint32_t i = 0; i < c->pixels; i++) {
            float d = scale * dy[i] - centre - (x[i] - mean) * slope;
            dx[i] = c->accumulate ? dx[i] + d : d;
        }
    }
}

void ft_norm_batch_backward(const ft_norm_channel *c, float *dgamma, float *dbeta, float gamma, const float *kept,
                            bool constant)
{
    float inverse = kept[1], scale = gamma * inverse, count = (float)(c->runs * c->pixels);
    ft_norm_sums none = {0.0f, 0.0f}, sums = dgamma || !constant ? channel_sums(c, dgamma, dbeta, kept) : none;
    if (constant)
        sums = none;
    channel_gradient(c, kept[0], scale, scale * (sums.plain / count), scale * (inverse * inverse * (sums.centred / count)));
}

void ft_norm_group_sum(ft_norm_sums *sums, const ft_norm_channel *c, float *dgamma, float *dbeta, float gamma,
                       const float *kept)
{
    ft_norm_sums own = channel_sums(c, dgamma, dbeta, kept);
    sums->plain += gamma * own.plain;
    sums->centred += gamma * own.centred;
}

void ft_norm_group_gradient(const ft_norm_channel *c, ft_norm_sums sums, float gamma, const float *kept, uint32_t count)
{
    float inverse = kept[1], centre = inverse * (sums.plain / (float)count);
    channel_gradient(c, kept[0], gamma * inverse, centre, inverse * (inverse * inverse * (sums.centred / (float)count)));
}
