/* Taps: the weights of one output row as (position, weight) pairs, applied to runs of contiguous samples.
 *
 * A convolution, a depthwise convolution and an interleaved linear layer are all rows of taps over a suitably laid out
 * input, dense or sparse. x[position * pitch + i] meets output i; every output adds its taps in list order, so tile width
 * and vector width do not change the bits. taps.c is portable C; taps_vector.c gives the same bits with wide registers. */
#ifndef FT_TAPS_H
#define FT_TAPS_H

#include <stdint.h>

/* Floats past the end of x that ft_taps_forward may read (and ignore). */
enum { FT_TAPS_SLACK = 32 };

/* y[i] = bias + sum_k w[k] x[at[k] pitch + i], i < n */
void ft_taps_forward(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps, uint32_t pitch,
                     float bias, uint32_t n);
/* dx[at[k] pitch + i] += w[k] dy[i] */
void ft_taps_backward_input(float *dx, const float *dy, const float *w, const uint16_t *at, uint32_t taps,
                            uint32_t pitch, uint32_t n);
/* dw[k] += sum_i dy[i] x[at[k] pitch + i] */
void ft_taps_backward_weight(float *dw, const float *dy, const float *x, const uint16_t *at, uint32_t taps,
                             uint32_t pitch, uint32_t n);

/* Reductions in eight lanes: element i goes to lane i % 8, the lanes meet in the tree of ft_lanes_total. */
enum { FT_LANES = 8 };
void ft_lanes_sum(float lanes[FT_LANES], const float *x, uint32_t n);
void ft_lanes_squares(float lanes[FT_LANES], const float *x, float mean, uint32_t n);                  /* (x - mean)^2 */
void ft_lanes_dot(float lanes[FT_LANES], const float *a, const float *x, float mean, uint32_t n);      /* a (x - mean) */

static inline float ft_lanes_total(const float l[FT_LANES])
{
    return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}

#endif
