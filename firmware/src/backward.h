/* Backward passes over a micro-batch: one operator, all of them, and the gradients of pruned weights. */
#ifndef FT_BACKWARD_H
#define FT_BACKWARD_H

#include "net.h"

/* Where the gradients of an operator's own values go (added to; what a standardised weight adds to must be 0): weight and
 * bias, or gamma and beta. NULL: nowhere. */
typedef struct {
    float *first, *second;
} ft_gradients;

ft_gradients ft_backward_into(const ft_net *net, uint32_t index, float *gradients); /* gradients: as the values that train */

/* Gradients of one operator's values and of its input (if `to_input`), from its output's. */
void ft_backward_op(ft_net *net, uint32_t index, uint32_t batch, ft_gradients into, bool to_input);
/* From the loss down to operator `last` (included; its input gradient is left out when last > 0 is a stop). gradients:
 * added to, ordered as the values that train; NULL: only activations' gradients. */
void ft_backward_run(ft_net *net, uint32_t batch, float *gradients, uint32_t last);
/* Gradient rows of a layer's *whole* rows [row, row + rows), added to dw (rows, row_len); positions: one full row's. Of a
 * standardised weight it is the gradient of what the convolution applies. Call
 * after ft_backward_run down to the layer's operator. */
void ft_backward_dense_rows(ft_net *net, uint32_t index, uint32_t batch, const uint16_t *positions, uint32_t row,
                            uint32_t rows, float *dw);

#endif
