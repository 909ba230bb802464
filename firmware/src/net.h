/* A laid-out network over one micro-batch: where its vectors lie, its forward pass and its loss. */
#ifndef FT_NET_H
#define FT_NET_H

#include "op/norm.h"
#include "op/pool.h"
#include "plan.h"

typedef enum { FT_PASS_INFER, FT_PASS_MEASURE, FT_PASS_TRAIN, FT_PASS_SCORE } ft_pass; /* = bit number of FT_MODE_* */

typedef struct {
    ft_blob blob;
    ft_config config;
    ft_layout layout;
    float *weights;    /* as they are held */
    uint16_t *indices;
    float *stats;      /* statistics vector */
    float *kept;
    uint16_t *labels;  /* of the micro-batch */
    float *work;
    uint8_t *topk;     /* scoring: heap, gradient rows, positions */
    float *gradients, *momentum; /* of the values that train */
    uint32_t value_count; /* of the values vector */
} ft_net;

/* Moments that a forward pass adds to: the moments vector (NULL: none) and the samples already in it. */
typedef struct {
    float *vector;
    uint32_t samples;
} ft_moments;

void ft_net_positions(const ft_net *net, uint32_t param, uint16_t *positions); /* of every element of a row */
void ft_net_build_indices(ft_net *net, uint32_t param, ft_mask *mask); /* mask NULL: the layer has none */
/* Which weights of a layer with a mask live, where it is held whole: u16s, the lowest bit first. Otherwise NULL. */
const uint16_t *ft_net_bitmap(const ft_net *net, uint32_t param);
static inline bool ft_net_lives(const uint16_t *bitmap, uint32_t element)
{
    return !bitmap || bitmap[element / 16] >> element % 16 & 1;
}
void ft_net_mask(const ft_net *net, uint32_t param, uint8_t *bitmap); /* of a layer with a mask: a bit for each element */
uint32_t ft_net_held(const ft_net *net); /* floats of weights that are held now */
/* Live values alone, of floats that lie as the weights from `param` on do; may be done in place. */
void ft_net_gather(const ft_net *net, float *vector, const float *held, uint32_t param);
void ft_net_prune(const ft_net *net, float *held, uint32_t param); /* 0 where the parameter, which lies at held, is pruned */
float *ft_net_input(const ft_net *net, ft_pass pass);
float *ft_net_output(const ft_net *net, ft_pass pass);
float *ft_net_value(const ft_net *net, ft_pass pass, uint32_t tensor);
float *ft_net_gradient(const ft_net *net, uint32_t tensor); /* NULL: the input, which has none */

/* An operator's parts, as the files in op/ take them. */
ft_taps ft_net_taps(const ft_net *net, uint32_t param);
/* The weights as a convolution applies them: standardised ones are made in *buffer, which then points behind them. */
ft_taps ft_net_conv_taps(const ft_net *net, const ft_op *op, const ft_conv *c, float **buffer);
ft_norm ft_net_norm(const ft_net *net, const ft_op *op);
ft_pool ft_net_pool(const ft_net *net, const ft_op *op);
float ft_net_limit(const ft_op *relu);

void ft_net_forward(ft_net *net, ft_pass pass, uint32_t batch, ft_moments moments);
/* Fills the micro-batch's input and labels with samples order(i); fails with FT_ERR_DATA or, where a
 * sample is not finite, with FT_ERR_NONFINITE: operators may swallow a NaN. */
ft_status ft_net_read(ft_net *net, ft_pass pass, const ft_data *data, uint32_t first, uint32_t batch, uint32_t key,
                      bool shuffled);
/* Losses of the micro-batch; in training its gradient (mean over the batch) too. FT_ERR_NONFINITE if not finite. */
ft_status ft_net_loss(ft_net *net, ft_pass pass, uint32_t batch, ft_score_sum *sum);

#endif
