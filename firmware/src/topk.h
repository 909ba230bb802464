/* The k largest gradients of a layer's pruned weights, without ever holding the layer's dense gradient. */
#ifndef FT_TOPK_H
#define FT_TOPK_H

#include "net.h"

ft_status ft_topk_score(ft_net *net, const ft_data *data, uint32_t param, uint32_t k, uint32_t batches, uint32_t seed,
                        const ft_topk_entry **entries, uint32_t *found);

#endif
