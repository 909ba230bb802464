/* A laid-out network over one micro-batch: forward, backward, and where its vectors lie. */
#ifndef FT_NET_H
#define FT_NET_H

#include "plan.h"

typedef enum { FT_PASS_INFER, FT_PASS_MEASURE, FT_PASS_TRAIN, FT_PASS_SCORE } ft_pass; /* = bit number of FT_MODE_* */

typedef struct {
    ft_blob blob;
    ft_config config;
    ft_layout layout;
    float *weights;    /* the values vector */
    uint16_t *indices;
    float *stats;      /* statistics vector */
    float *kept;
    uint16_t *labels;  /* of the micro-batch */
    float *work;
    uint32_t value_count;
} ft_net;

/* Moments that a forward pass adds to: the moments vector (NULL: none) and the samples already in it. */
typedef struct {
    float *vector;
    uint32_t samples;
} ft_moments;

void ft_net_build_indices(ft_net *net, uint32_t param, ft_mask *mask); /* mask NULL: the layer is dense */
float *ft_net_input(const ft_net *net, ft_pass pass);
float *ft_net_output(const ft_net *net, ft_pass pass);
float *ft_net_extra(const ft_net *net, ft_pass pass); /* work behind activations and scratch: gradients, heap, … */
ft_taps ft_net_taps(const ft_net *net, uint32_t param);

void ft_net_forward(ft_net *net, ft_pass pass, uint32_t batch, ft_moments moments);
/* Fills the micro-batch's input and labels with samples order(i); fails with FT_ERR_DATA. */
ft_status ft_net_read(ft_net *net, ft_pass pass, const ft_data *data, uint32_t first, uint32_t batch, uint32_t key,
                      bool shuffled);
/* Losses of the micro-batch; in training its gradient (mean over the batch) too. FT_ERR_NONFINITE if not finite. */
ft_status ft_net_loss(ft_net *net, ft_pass pass, uint32_t batch, ft_score_sum *sum);
/* Backward from the loss down to operator `last` (included; its input gradient is left out when last > 0 is a stop).
 * gradients: added to, ordered as values; NULL: only activations' gradients. */
void ft_net_backward(ft_net *net, uint32_t batch, float *gradients, uint32_t last);
/* Gradient rows of a layer's *whole* rows [row, row + rows), added to dw (rows, row_len); positions: one full row's. Call
 * after ft_net_backward down to the layer's operator. */
void ft_net_dense_rows(ft_net *net, uint32_t op_index, uint32_t batch, const uint16_t *positions, uint32_t row,
                       uint32_t rows, float *dw);

#endif
