#include "train.h"

#include "num.h"
#include "op/pointwise.h"
#include "op/taps.h"

static const ft_moments no_moments = {0, 0};

ft_status ft_train_run(ft_net *net, const ft_data *data, const ft_train_task *task, ft_score_sum *result,
                       float *moments)
{
    uint32_t count = data->count, values = net->value_count;
    uint32_t batch = count < net->config.micro_batch ? count : net->config.micro_batch;
    float *gradients = ft_net_extra(net, FT_PASS_TRAIN), *momentum = gradients + values;
    ft_zero(momentum, values);
    for (uint32_t epoch = 0; epoch < task->epochs; epoch++) {
        ft_moments seen = {epoch + 1 == task->epochs ? moments : 0, 0};
        memset(result, 0, sizeof *result);
        for (uint32_t first = 0; first + batch <= count; first += batch, seen.samples += batch) {
            ft_status status = ft_net_read(net, FT_PASS_TRAIN, data, first, batch, task->seed + epoch, true);
            if (status != FT_OK)
                return status;
            ft_net_forward(net, FT_PASS_TRAIN, batch, seen);
            status = ft_net_loss(net, FT_PASS_TRAIN, batch, result);
            if (status != FT_OK)
                return status;
            ft_zero(gradients, values);
            ft_net_backward(net, batch, gradients, 0);
            ft_sgd_step(net->weights, gradients, momentum, task->lr, task->momentum, task->weight_decay, values);
        }
    }
    return ft_num_all_finite(net->weights, values) ? FT_OK : FT_ERR_NONFINITE;
}

ft_status ft_train_gradient(ft_net *net, const ft_data *data, uint32_t first, uint32_t count, const float **gradients,
                            double *loss_sum)
{
    float *into = ft_net_extra(net, FT_PASS_TRAIN);
    ft_score_sum sum = {0};
    ft_status status = ft_net_read(net, FT_PASS_TRAIN, data, first, count, 0, false);
    if (status != FT_OK)
        return status;
    ft_net_forward(net, FT_PASS_TRAIN, count, no_moments);
    status = ft_net_loss(net, FT_PASS_TRAIN, count, &sum);
    if (status != FT_OK)
        return status;
    ft_zero(into, net->value_count);
    ft_net_backward(net, count, into, 0);
    *gradients = into;
    *loss_sum = sum.loss_sum;
    return FT_OK;
}
