/* Convolution and linear layer, forward and both gradients, as rows of taps.
 *
 * One sample at a time is copied into scratch with its zero border, split into stride phases so that every tap reads a
 * contiguous run; kept activations stay unpadded. Tensors: x (B, CI, H, W), y (B, CO, HO, WO); linear x (B, CI), y (B, CO). */
#ifndef FT_CONV_H
#define FT_CONV_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t ci, h, w, co, ho, wo;
    uint32_t kh, kw, sh, sw, pt, pl, groups;
    /* derived by ft_conv_derive */
    uint32_t ph, pw;   /* stride phases kept along each axis */
    uint32_t hq, wq;   /* rows and row pitch of one phase plane */
    uint32_t plane;    /* floats of one padded input channel, all phases */
    uint32_t row_len;  /* weights of one output channel */
    bool direct;       /* the input already has this layout: no copy */
} ft_conv;

/* Weights of a layer: live values row by row, and where each reads. */
typedef struct {
    const float *values;
    const uint16_t *at;     /* positions: of every live weight, or (counts == NULL) one row's, shared by all rows */
    const uint16_t *counts; /* live weights of each row; NULL: dense */
} ft_taps;

/* One row of a layer, and the walk from row to row. */
typedef struct {
    const float *values; /* NULL where the taps have none */
    const uint16_t *at;
    uint32_t count;
} ft_conv_row;

ft_conv_row ft_conv_first_row(const ft_taps *taps, uint32_t row_len);
void ft_conv_next_row(ft_conv_row *row, const ft_taps *taps, uint32_t next, uint32_t rows);

void ft_conv_derive(ft_conv *c);
uint32_t ft_conv_position(const ft_conv *c, uint32_t element); /* element: flat index within a row (I/groups, KH, KW) */
uint32_t ft_conv_scratch(const ft_conv *c);                    /* floats of scratch that each call below needs */

void ft_conv_forward(float *y, const float *x, const ft_taps *taps, const float *bias, const ft_conv *c, uint32_t batch,
                     float *scratch);
void ft_conv_backward_input(float *dx, const float *dy, const ft_taps *taps, const ft_conv *c, uint32_t batch,
                            float *scratch, bool accumulate);
/* Adds the gradient of the rows [row, row + rows) to dw, laid out as the taps' values from that row on. */
void ft_conv_backward_weight(float *dw, const float *dy, const float *x, const ft_taps *taps, const ft_conv *c,
                             uint32_t batch, float *scratch, uint32_t row, uint32_t rows);
/* dbias (CO) += sum of dy (B, CO, pixels) */
void ft_conv_backward_bias(float *dbias, const float *dy, uint32_t channels, uint32_t pixels, uint32_t batch);

uint32_t ft_linear_scratch(uint32_t ci, uint32_t batch, bool accumulate); /* accumulate: onto the input's gradient */
void ft_linear_forward(float *y, const float *x, const ft_taps *taps, const float *bias, uint32_t ci, uint32_t co,
                       uint32_t batch, float *scratch);
void ft_linear_backward_input(float *dx, const float *dy, const ft_taps *taps, uint32_t ci, uint32_t co, uint32_t batch,
                              float *scratch, bool accumulate);
void ft_linear_backward_weight(float *dw, const float *dy, const float *x, const ft_taps *taps, uint32_t ci, uint32_t co,
                               uint32_t batch, float *scratch, uint32_t row, uint32_t rows);

#endif
