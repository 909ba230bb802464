/* Local training: epochs of SGD over micro-batches. */
#ifndef FT_TRAIN_H
#define FT_TRAIN_H

#include "net.h"

ft_status ft_train_run(ft_net *net, const ft_data *data, const ft_train_task *task, ft_score_sum *result,
                       float *moments);
/* Loss and gradient of the samples [first, first + count), without a step. */
ft_status ft_train_gradient(ft_net *net, const ft_data *data, uint32_t first, uint32_t count, const float **gradients,
                            double *loss_sum);

#endif
