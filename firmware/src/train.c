#include "train.h"

#include "backward.h"
#include "num.h"
#include "op/pointwise.h"
#include "op/taps.h"

static const ft_moments no_moments = {0, 0};

/* g is lost. m NULL: there is no memory for momentum, and none is asked for. */
static void step(float *w, float *g, float *m, const ft_train_task *task, uint32_t count)
{
    if (m) {
        ft_sgd_step(w, g, m, task->lr, task->momentum, task->weight_decay, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        w[i] = w[i] - task->lr * (g[i] + task->weight_decay * w[i]);
}

/* Backward and step operator by operator: nothing that runs later reads an operator's values again. */
static void step_by_layer(ft_net *net, uint32_t batch, float *momentum, const ft_train_task *task)
{
    uint32_t start = ft_plan_first_value(&net->layout);
    for (uint32_t i = net->blob.ops; i-- > net->layout.first_op;) {
        ft_op op = ft_blob_op(&net->blob, i);
        ft_gradients into = {0, 0};
        float *at = net->work + net->layout.steps[i].gradients_at;
        for (int k = 0; k < 2 && net->layout.steps[i].gradients_at != FT_NOWHERE && op.param[k] != FT_NONE; k++) {
            uint32_t held = net->layout.slots[op.param[k]].held;
            *(k ? &into.second : &into.first) = at;
            ft_zero(at, held);
            at += held;
        }
        ft_backward_op(net, i, batch, into, true);
        for (int k = 0; k < 2; k++) {
            float *g = k ? into.second : into.first;
            if (!g)
                continue;
            const ft_slot *slot = &net->layout.slots[op.param[k]];
            step(net->weights + slot->start, g, momentum ? momentum + (slot->start - start) : 0, task, slot->held);
        }
    }
}

/* Reads every sample once, so that what is wrong with the data is known before a weight changes. */
static ft_status check_data(ft_net *net, const ft_data *data)
{
    for (uint32_t i = 0; i < data->count; i++) {
        ft_status status = ft_net_read(net, FT_PASS_TRAIN, data, i, 1, 0, false);
        if (status != FT_OK)
            return status;
    }
    return FT_OK;
}

ft_status ft_train_run(ft_net *net, const ft_data *data, const ft_train_task *task, ft_score_sum *result,
                       float *moments)
{
    uint32_t count = data->count, start = ft_plan_first_value(&net->layout), values = ft_net_held(net) - start;
    uint32_t batch = count < net->config.micro_batch ? count : net->config.micro_batch;
    bool by_layer = net->config.layerwise;
    float *gradients = net->gradients, *momentum = net->momentum;
    ft_status status = check_data(net, data);
    if (status != FT_OK)
        return status;
    if (moments && net->layout.stat_count)
        ft_zero(moments, net->layout.stat_count); /* frozen norms measure nothing */
    if (net->config.plain_sgd)
        momentum = 0;
    else
        ft_zero(momentum, values);
    for (uint32_t epoch = 0; epoch < task->epochs; epoch++) {
        ft_moments seen = {epoch + 1 == task->epochs ? moments : 0, 0};
        memset(result, 0, sizeof *result);
        for (uint32_t first = 0; first + batch <= count; first += batch, seen.samples += batch) {
            status = ft_net_read(net, FT_PASS_TRAIN, data, first, batch, task->seed + epoch, true);
            if (status != FT_OK)
                return status;
            ft_net_forward(net, FT_PASS_TRAIN, batch, seen);
            status = ft_net_loss(net, FT_PASS_TRAIN, batch, result);
            if (status != FT_OK)
                return status;
            if (by_layer) {
                step_by_layer(net, batch, momentum, task);
                continue;
            }
            ft_zero(gradients, values);
            ft_backward_run(net, batch, gradients, net->layout.first_op);
            step(net->weights + start, gradients, momentum, task, values);
        }
    }
    return ft_num_all_finite(net->weights + start, values) ? FT_OK : FT_ERR_NONFINITE;
}

ft_status ft_train_gradient(ft_net *net, const ft_data *data, uint32_t first, uint32_t count, const float **gradients,
                            double *loss_sum)
{
    float *into = net->gradients;
    ft_score_sum sum = {0};
    ft_status status = ft_net_read(net, FT_PASS_TRAIN, data, first, count, 0, false);
    if (status != FT_OK)
        return status;
    ft_net_forward(net, FT_PASS_TRAIN, count, no_moments);
    status = ft_net_loss(net, FT_PASS_TRAIN, count, &sum);
    if (status != FT_OK)
        return status;
    ft_zero(into, ft_net_held(net) - ft_plan_first_value(&net->layout));
    ft_backward_run(net, count, into, net->layout.first_op);
    ft_net_gather(net, into, into, net->layout.first_param);
    *gradients = into;
    *loss_sum = sum.loss_sum;
    return FT_OK;
}
