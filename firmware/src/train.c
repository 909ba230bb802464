#include "train.h"

#include "num.h"

static const ft_moments no_moments = {0, 0};

/* m = momentum m + g + weight_decay w;  w = w - lr m: torch.optim.SGD without dampening. */
static void step(float *w, const float *g, float *m, const ft_train_task *task, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        m[i] = task->momentum * m[i] + (g[i] + task->weight_decay * w[i]);
        w[i] = w[i] - task->lr * m[i];
    }
}

ft_status ft_train_run(ft_net *net, const ft_data *data, const ft_train_task *task, ft_score_sum *result,
                       float *moments)
{
    uint32_t count = data->count, values = net->value_count;
    uint32_t batch = count < net->config.micro_batch ? count : net->config.micro_batch;
    float *gradients = ft_net_extra(net, FT_PASS_TRAIN), *momentum = gradients + values;
    memset(momentum, 0, values * sizeof *momentum);
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
            memset(gradients, 0, values * sizeof *gradients);
            ft_net_backward(net, batch, gradients, 0);
            step(net->weights, gradients, momentum, task, values);
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
    memset(into, 0, net->value_count * sizeof *into);
    ft_net_backward(net, count, into, 0);
    *gradients = into;
    *loss_sum = sum.loss_sum;
    return FT_OK;
}
