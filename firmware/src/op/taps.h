/* Taps: the weights of one output row as (position, weight) pairs, applied to runs of contiguous samples.
 *
 * A convolution or depthwise convolution is rows of taps over a padded input, dense or sparse; a linear layer is rows of
 * taps over its inputs. The order of additions is written here and is the same in every variant, so tile width and vector
 * width do not change the bits: taps.c is portable C, taps_vector.c is for wide registers, taps_m4.c with taps_m4.S for Cortex-M with a single precision FPU (whose FT_FAST build fuses multiply and add and so
 * gives other bits). */
#ifndef FT_TAPS_H
#define FT_TAPS_H

#include <stdbool.h>
#include <stdint.h>

/* The outputs of one channel: rows x cols, stored without gaps; the inputs of two rows lie `pitch` apart, those of two
 * positions `step`: 1, or n for n samples side by side, which are n columns. */
typedef struct {
    uint32_t rows, cols, pitch, step;
    bool triples;   /* taps come in threes whose positions are p, p + 1, p + 2 */
    uint32_t reach; /* taps this close read the same input channel, whose gradient fills from 0; 0: not known */
} ft_grid;

/* y[r, c] = bias + sum_k w[k] x[at[k] step + r pitch + c]; k ascending */
void ft_taps_forward(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps, float bias,
                     const ft_grid *g);
/* dx[at[k] step + r pitch + c] += w[k] dy[r, c]; k ascending */
void ft_taps_backward_input(float *dx, const float *dy, const float *w, const uint16_t *at, uint32_t taps,
                            const ft_grid *g);
/* dw[k] += sum_rc dy[r, c] x[at[k] step + r pitch + c] in eight lanes: column c goes to lane c % 8, rows ascending */
void ft_taps_backward_weight(float *dw, const float *dy, const float *x, const uint16_t *at, uint32_t taps,
                             const ft_grid *g);

/* The same for one sample and every weight of w (CO, CI): k ascending for y, o ascending for dx. */
void ft_dense_forward(float *y, const float *x, const float *w, const float *bias, uint32_t ci, uint32_t co);
void ft_dense_backward_input(float *dx, const float *dy, const float *w, uint32_t ci, uint32_t co); /* adds */
void ft_dense_backward_weight(float *dw, const float *dy, const float *x, uint32_t ci, uint32_t co); /* adds */

/* Rows of `cols` floats, `to_pitch` and `from_pitch` apart. */
void ft_rows_copy(float *to, uint32_t to_pitch, const float *from, uint32_t from_pitch, uint32_t rows, uint32_t cols);
/* n floats `from_step` apart to places `to_step` apart; add: onto what is there. */
void ft_row_move(float *to, uint32_t to_step, const float *from, uint32_t from_step, uint32_t n, bool add);
void ft_zero(float *to, uint32_t n);

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
