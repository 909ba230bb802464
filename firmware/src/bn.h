/* Batch-norm moments of a node's samples, and the loss under given statistics. */
#ifndef FT_BN_H
#define FT_BN_H

#include "net.h"

ft_status ft_bn_measure(ft_net *net, const ft_data *data, uint32_t samples, float *moments);
ft_status ft_bn_evaluate(ft_net *net, const ft_data *data, uint32_t samples, ft_score_sum *sum);

#endif
