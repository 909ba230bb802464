#include "norm.h"

#include "../num.h"
#include "taps.h"

/* y = (x - mean) * scale + beta over one run */
static void scale_run(float *y, const float *x, float mean, float scale, float beta, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * scale + beta;
}

/* dx (+)= scale * dy - centre - (x - mean) * slope over one run */
static void gradient_run(float *dx, const float *dy, const float *x, float mean, float scale, float centre, float slope,
                         uint32_t n, bool accumulate)
{
    if (accumulate)
        for (uint32_t i = 0; i < n; i++)
            dx[i] += scale * dy[i] - centre - (x[i] - mean) * slope;
    else
        for (uint32_t i = 0; i < n; i++)
            dx[i] = scale * dy[i] - centre - (x[i] - mean) * slope;
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
                           uint32_t batch, float *kept, float *sum, float *m2, uint32_t seen)
{
    uint32_t stride = n->channels * n->pixels, count = batch * n->pixels;
    for (uint32_t c = 0; c < n->channels; c++) {
        const float *from = x + c * n->pixels;
        float lanes[FT_LANES] = {0}, squares[FT_LANES] = {0};
        for (uint32_t b = 0; b < batch; b++)
            ft_lanes_sum(lanes, from + b * stride, n->pixels);
        float mean = ft_lanes_total(lanes) / (float)count;
        for (uint32_t b = 0; b < batch; b++)
            ft_lanes_squares(squares, from + b * stride, mean, n->pixels);
        float total = ft_lanes_total(squares);
        float inverse = 1.0f / ft_num_sqrt(total / (float)count + n->eps);
        kept[2 * c] = mean;
        kept[2 * c + 1] = inverse;
        if (sum)
            take_in(sum + c, m2 + c, seen, mean, total, count);
        for (uint32_t b = 0; b < batch; b++)
            scale_run(y + b * stride + c * n->pixels, from + b * stride, mean, inverse * gamma[c], beta[c], n->pixels);
    }
}

/* sum of dy and of dy (x - mean) over channel c */
static void channel_sums(float *plain, float *centred, const float *dy, const float *x, float mean, uint32_t c,
                         const ft_norm *n, uint32_t batch)
{
    float lanes[FT_LANES] = {0}, dots[FT_LANES] = {0};
    for (uint32_t b = 0; b < batch; b++) {
        uint32_t at = (b * n->channels + c) * n->pixels;
        ft_lanes_sum(lanes, dy + at, n->pixels);
        ft_lanes_dot(dots, dy + at, x + at, mean, n->pixels);
    }
    *plain = ft_lanes_total(lanes);
    *centred = ft_lanes_total(dots);
}

void ft_norm_batch_backward(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x, const float *gamma,
                            const ft_norm *n, uint32_t batch, const float *kept, bool accumulate)
{
    float count = (float)(batch * n->pixels);
    for (uint32_t c = 0; c < n->channels; c++) {
        float mean = kept[2 * c], inverse = kept[2 * c + 1], plain, centred;
        channel_sums(&plain, &centred, dy, x, mean, c, n, batch);
        if (dgamma) {
            dgamma[c] += centred * inverse;
            dbeta[c] += plain;
        }
        if (!dx)
            continue;
        float scale = gamma[c] * inverse;
        float slope = scale * (inverse * inverse * (centred / count));
        for (uint32_t b = 0; b < batch; b++) {
            uint32_t at = (b * n->channels + c) * n->pixels;
            gradient_run(dx + at, dy + at, x + at, mean, scale, scale * (plain / count), slope, n->pixels, accumulate);
        }
    }
}

void ft_norm_frozen_forward(float *y, const float *x, const float *gamma, const float *beta, const float *mean,
                            const float *var, const ft_norm *n, uint32_t batch, float *kept)
{
    for (uint32_t c = 0; c < n->channels; c++) {
        float inverse = 1.0f / ft_num_sqrt(var[c] + n->eps);
        kept[2 * c] = mean[c];
        kept[2 * c + 1] = inverse;
        for (uint32_t b = 0; b < batch; b++) {
            uint32_t at = (b * n->channels + c) * n->pixels;
            scale_run(y + at, x + at, mean[c], inverse * gamma[c], beta[c], n->pixels);
        }
    }
}

void ft_norm_frozen_backward(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x, const float *gamma,
                             const ft_norm *n, uint32_t batch, const float *kept, bool accumulate)
{
    for (uint32_t c = 0; c < n->channels; c++) {
        float mean = kept[2 * c], inverse = kept[2 * c + 1], plain, centred;
        if (dgamma) {
            channel_sums(&plain, &centred, dy, x, mean, c, n, batch);
            dgamma[c] += centred * inverse;
            dbeta[c] += plain;
        }
        for (uint32_t b = 0; dx && b < batch; b++) {
            uint32_t at = (b * n->channels + c) * n->pixels;
            gradient_run(dx + at, dy + at, x + at, mean, gamma[c] * inverse, 0.0f, 0.0f, n->pixels, accumulate);
        }
    }
}

void ft_norm_group_forward(float *y, const float *x, const float *gamma, const float *beta, const ft_norm *n,
                           uint32_t batch, float *kept)
{
    uint32_t members = n->channels / n->groups, run = members * n->pixels;
    for (uint32_t g = 0; g < batch * n->groups; g++, x += run, y += run, kept += 2) {
        float lanes[FT_LANES] = {0}, squares[FT_LANES] = {0};
        ft_lanes_sum(lanes, x, run);
        float mean = ft_lanes_total(lanes) / (float)run;
        ft_lanes_squares(squares, x, mean, run);
        float inverse = 1.0f / ft_num_sqrt(ft_lanes_total(squares) / (float)run + n->eps);
        kept[0] = mean;
        kept[1] = inverse;
        for (uint32_t m = 0; m < members; m++) {
            uint32_t c = g % n->groups * members + m;
            scale_run(y + m * n->pixels, x + m * n->pixels, mean, inverse * gamma[c], beta[c], n->pixels);
        }
    }
}

void ft_norm_group_sum(ft_norm_sums *sums, float *dgamma, float *dbeta, const float *dy, const float *x, float gamma,
                       uint32_t pixels, const float *kept)
{
    float lanes[FT_LANES] = {0}, dots[FT_LANES] = {0};
    ft_lanes_sum(lanes, dy, pixels);
    ft_lanes_dot(dots, dy, x, kept[0], pixels);
    float plain = ft_lanes_total(lanes), centred = ft_lanes_total(dots);
    if (dgamma) {
        *dgamma += centred * kept[1];
        *dbeta += plain;
    }
    sums->plain += gamma * plain;
    sums->centred += gamma * centred;
}

void ft_norm_group_gradient(float *dx, const float *dy, const float *x, ft_norm_sums sums, float gamma, const ft_norm *n,
                            const float *kept, bool accumulate)
{
    float inverse = kept[1], count = (float)(n->channels / n->groups * n->pixels);
    float centre = inverse * (sums.plain / count), slope = inverse * (inverse * inverse * (sums.centred / count));
    gradient_run(dx, dy, x, kept[0], gamma * inverse, centre, slope, n->pixels, accumulate);
}

void ft_norm_group_backward(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x, const float *gamma,
                            const ft_norm *n, uint32_t batch, const float *kept, bool accumulate)
{
    uint32_t members = n->channels / n->groups;
    for (uint32_t g = 0; g < batch * n->groups; g++, kept += 2) {
        ft_norm_sums sums = {0.0f, 0.0f};
        uint32_t first = g % n->groups * members, at = g * members * n->pixels;
        for (uint32_t m = 0; m < members; m++)
            ft_norm_group_sum(&sums, dgamma ? dgamma + first + m : 0, dgamma ? dbeta + first + m : 0,
                              dy + at + m * n->pixels, x + at + m * n->pixels, gamma[first + m], n->pixels, kept);
        for (uint32_t m = 0; dx && m < members; m++, at += n->pixels)
            ft_norm_group_gradient(dx + at, dy + at, x + at, sums, gamma[first + m], n, kept, accumulate);
    }
}
