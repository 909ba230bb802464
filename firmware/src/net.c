#include "net.h"

#include "num.h"
#include "op/loss.h"
#include "op/norm.h"
#include "op/pointwise.h"
#include "op/pool.h"

static const float *weights_of(const ft_net *net, uint32_t param)
{
    return param == FT_NONE ? 0 : net->weights + net->layout.slots[param].start;
}

ft_taps ft_net_taps(const ft_net *net, uint32_t param)
{
    ft_param p = ft_blob_param(&net->blob, param);
    const uint16_t *indices = net->indices + net->layout.slots[param].index_at;
    bool dense = p.storage == FT_STORAGE_DENSE;
    ft_taps taps = {weights_of(net, param), dense ? indices : indices + p.dim[0], dense ? 0 : indices};
    return taps;
}

void ft_net_build_indices(ft_net *net, uint32_t param, ft_mask *mask)
{
    ft_param p = ft_blob_param(&net->blob, param);
    ft_op op = ft_blob_op(&net->blob, ft_plan_user(&net->blob, param));
    ft_conv conv = {0};
    if (op.kind == FT_OP_CONV2D)
        conv = ft_plan_conv(&net->blob, &op);
    uint32_t row_len = p.elements / p.dim[0], index, live = 0;
    uint16_t *counts = net->indices + net->layout.slots[param].index_at;
    if (!mask) {
        for (uint32_t i = 0; i < row_len; i++)
            counts[i] = (uint16_t)(op.kind == FT_OP_CONV2D ? ft_conv_position(&conv, i) : i);
        return;
    }
    memset(counts, 0, p.dim[0] * sizeof *counts);
    while (ft_mask_next(mask, &index)) {
        uint32_t element = index % row_len;
        counts[index / row_len]++;
        counts[p.dim[0] + live++] = (uint16_t)(op.kind == FT_OP_CONV2D ? ft_conv_position(&conv, element) : element);
    }
    net->layout.slots[param].live = live;
}

static uint32_t placed_batch(const ft_net *net, ft_pass pass)
{
    return pass == FT_PASS_INFER ? 1 : net->config.micro_batch;
}

static bool trains(ft_pass pass) { return pass == FT_PASS_TRAIN || pass == FT_PASS_SCORE; }

/* Tensors lie at their per-sample offset times the planned micro-batch, however many samples a pass really has. */
static float *value(const ft_net *net, ft_pass pass, uint32_t tensor)
{
    const ft_place *place = &net->layout.places[tensor];
    return net->work + (size_t)(trains(pass) ? place->train_at : place->forward_at) * placed_batch(net, pass);
}

static float *gradient(const ft_net *net, uint32_t tensor)
{
    uint32_t at = net->layout.places[tensor].gradient_at;
    return at == FT_NOWHERE ? 0 : net->work + (size_t)at * net->config.micro_batch;
}

static float *scratch(const ft_net *net, ft_pass pass)
{
    uint32_t floats = trains(pass) ? net->layout.train_floats : net->layout.forward_floats;
    return net->work + (size_t)floats * placed_batch(net, pass);
}

float *ft_net_extra(const ft_net *net, ft_pass pass)
{
    return scratch(net, pass) + (pass == FT_PASS_INFER ? net->layout.scratch_one : net->layout.scratch_batch);
}

float *ft_net_input(const ft_net *net, ft_pass pass) { return value(net, pass, net->blob.input); }
float *ft_net_output(const ft_net *net, ft_pass pass) { return value(net, pass, net->blob.output); }

static ft_norm norm_of(const ft_net *net, const ft_op *op)
{
    ft_shape s = ft_blob_tensor(&net->blob, op->in[0]);
    ft_norm n = {s.c, (uint32_t)s.h * s.w, op->groups, op->eps};
    return n;
}

static ft_pool pool_of(const ft_net *net, const ft_op *op)
{
    ft_shape in = ft_blob_tensor(&net->blob, op->in[0]), out = ft_blob_tensor(&net->blob, op->out);
    ft_pool p = {in.h, in.w, out.h, out.w, op->kh, op->kw, op->sh, op->sw, op->pt, op->pl,
                 (op->flags & FT_FLAG_COUNT_PAD) != 0};
    return p;
}

static float limit_of(const ft_op *op) { return op->kind == FT_OP_RELU6 ? 6.0f : ft_num_from_bits(0x7F800000u); }

static void forward_batchnorm(ft_net *net, ft_pass pass, const ft_op *op, const ft_step *step, uint32_t batch,
                              ft_moments moments, float *y, const float *x)
{
    ft_norm n = norm_of(net, op);
    const float *gamma = weights_of(net, op->param[0]), *beta = weights_of(net, op->param[1]);
    const float *stats = net->stats + step->statistic_at;
    float *kept = net->kept + step->kept_at;
    if (pass == FT_PASS_INFER || (trains(pass) && net->config.norm == FT_NORM_FROZEN)) {
        ft_norm_frozen_forward(y, x, gamma, beta, stats, stats + n.channels, &n, batch, kept);
        return;
    }
    float *sum = moments.vector ? moments.vector + step->statistic_at : 0;
    ft_norm_batch_forward(y, x, gamma, beta, &n, batch, kept, sum, sum ? sum + n.channels : 0,
                          moments.samples * n.pixels);
}

static void forward_op(ft_net *net, ft_pass pass, uint32_t index, uint32_t batch, ft_moments moments)
{
    ft_op op = ft_blob_op(&net->blob, index);
    const ft_step *step = &net->layout.steps[index];
    ft_shape in = ft_blob_tensor(&net->blob, op.in[0]), out = ft_blob_tensor(&net->blob, op.out);
    float *y = value(net, pass, op.out), *buffer = scratch(net, pass);
    const float *x = value(net, pass, op.in[0]);
    switch (op.kind) {
    case FT_OP_CONV2D: {
        ft_conv c = ft_plan_conv(&net->blob, &op);
        ft_taps taps = ft_net_taps(net, op.param[0]);
        ft_conv_forward(y, x, &taps, weights_of(net, op.param[1]), &c, batch, buffer);
        break;
    }
    case FT_OP_LINEAR: {
        ft_taps taps = ft_net_taps(net, op.param[0]);
        ft_linear_forward(y, x, &taps, weights_of(net, op.param[1]), in.c, out.c, batch, buffer);
        break;
    }
    case FT_OP_BATCHNORM:
        forward_batchnorm(net, pass, &op, step, batch, moments, y, x);
        break;
    case FT_OP_GROUPNORM: {
        ft_norm n = norm_of(net, &op);
        ft_norm_group_forward(y, x, weights_of(net, op.param[0]), weights_of(net, op.param[1]), &n, batch,
                              net->kept + step->kept_at);
        break;
    }
    case FT_OP_RELU:
    case FT_OP_RELU6:
        ft_relu_forward(y, x, limit_of(&op), batch * ft_shape_size(out));
        break;
    case FT_OP_MAXPOOL:
    case FT_OP_AVGPOOL: {
        ft_pool p = pool_of(net, &op);
        if (op.kind == FT_OP_MAXPOOL)
            ft_pool_max_forward(y, x, &p, batch * in.c);
        else
            ft_pool_average_forward(y, x, &p, batch * in.c);
        break;
    }
    case FT_OP_ADD:
        ft_add_forward(y, x, value(net, pass, op.in[1]), batch * ft_shape_size(out));
        break;
    default: /* flatten shares its input's memory */
        break;
    }
}

void ft_net_forward(ft_net *net, ft_pass pass, uint32_t batch, ft_moments moments)
{
    for (uint32_t i = 0; i < net->blob.ops; i++)
        forward_op(net, pass, i, batch, moments);
}

ft_status ft_net_read(ft_net *net, ft_pass pass, const ft_data *data, uint32_t first, uint32_t batch, uint32_t key,
                      bool shuffled)
{
    float *x = ft_net_input(net, pass);
    uint32_t size = ft_shape_size(ft_blob_tensor(&net->blob, net->blob.input));
    uint32_t classes = ft_shape_size(ft_blob_tensor(&net->blob, net->blob.output));
    for (uint32_t i = 0; i < batch; i++, x += size) {
        uint32_t index = shuffled ? ft_shuffle(first + i, data->count, key) : first + i;
        if (data->read(data->ctx, index, x, &net->labels[i]) != 0 || net->labels[i] >= classes)
            return FT_ERR_DATA;
    }
    return FT_OK;
}

ft_status ft_net_loss(ft_net *net, ft_pass pass, uint32_t batch, ft_score_sum *sum)
{
    uint32_t classes = ft_shape_size(ft_blob_tensor(&net->blob, net->blob.output));
    const float *logits = ft_net_output(net, pass);
    float *dlogits = trains(pass) ? gradient(net, net->blob.output) : 0;
    for (uint32_t i = 0; i < batch; i++) {
        uint32_t hit;
        float loss = ft_loss_cross_entropy(dlogits ? dlogits + i * classes : 0, &hit, logits + i * classes,
                                           net->labels[i], 1.0f / (float)batch, classes);
        if (!ft_num_finite(loss))
            return FT_ERR_NONFINITE;
        sum->loss_sum += (double)loss;
        sum->correct += hit;
        sum->samples++;
    }
    return FT_OK;
}

static float *into(const ft_net *net, float *gradients, uint32_t param)
{
    return param == FT_NONE || !gradients ? 0 : gradients + net->layout.slots[param].start;
}

static void backward_weighted(ft_net *net, const ft_op *op, uint32_t batch, float *gradients, bool accumulate, float *dx,
                              const float *dy, const float *x)
{
    ft_taps taps = ft_net_taps(net, op->param[0]);
    ft_shape in = ft_blob_tensor(&net->blob, op->in[0]), out = ft_blob_tensor(&net->blob, op->out);
    float *dw = into(net, gradients, op->param[0]), *dbias = into(net, gradients, op->param[1]);
    float *buffer = scratch(net, FT_PASS_TRAIN);
    if (dbias)
        ft_conv_backward_bias(dbias, dy, out.c, (uint32_t)out.h * out.w, batch);
    if (op->kind == FT_OP_LINEAR) {
        if (dw)
            ft_linear_backward_weight(dw, dy, x, &taps, in.c, out.c, batch, buffer, 0, out.c);
        if (dx)
            ft_linear_backward_input(dx, dy, &taps, in.c, out.c, batch, buffer, accumulate);
        return;
    }
    ft_conv c = ft_plan_conv(&net->blob, op);
    if (dw)
        ft_conv_backward_weight(dw, dy, x, &taps, &c, batch, buffer, 0, c.co);
    if (dx)
        ft_conv_backward_input(dx, dy, &taps, &c, batch, buffer, accumulate);
}

static void backward_norm(ft_net *net, const ft_op *op, const ft_step *step, uint32_t batch, float *gradients, float *dx,
                          const float *dy, const float *x)
{
    ft_norm n = norm_of(net, op);
    const float *gamma = weights_of(net, op->param[0]), *kept = net->kept + step->kept_at;
    float *dgamma = into(net, gradients, op->param[0]), *dbeta = into(net, gradients, op->param[1]);
    bool accumulate = step->accumulate[0];
    if (op->kind == FT_OP_GROUPNORM)
        ft_norm_group_backward(dx, dgamma, dbeta, dy, x, gamma, &n, batch, kept, accumulate);
    else if (net->config.norm == FT_NORM_FROZEN)
        ft_norm_frozen_backward(dx, dgamma, dbeta, dy, x, gamma, &n, batch, kept, accumulate);
    else
        ft_norm_batch_backward(dx, dgamma, dbeta, dy, x, gamma, &n, batch, kept, accumulate);
}

static void backward_op(ft_net *net, uint32_t index, uint32_t batch, float *gradients, bool stop)
{
    ft_op op = ft_blob_op(&net->blob, index);
    const ft_step *step = &net->layout.steps[index];
    const float *dy = gradient(net, op.out), *x = value(net, FT_PASS_TRAIN, op.in[0]);
    float *dx = stop ? 0 : gradient(net, op.in[0]);
    uint32_t in_maps = ft_blob_tensor(&net->blob, op.in[0]).c * batch;
    uint32_t floats = batch * ft_shape_size(ft_blob_tensor(&net->blob, op.out));
    bool accumulate = step->accumulate[0];
    if (op.kind == FT_OP_CONV2D || op.kind == FT_OP_LINEAR) {
        backward_weighted(net, &op, batch, gradients, accumulate, dx, dy, x);
        return;
    }
    /* an add's second input first: the first one's gradient may be dy's own memory */
    float *other = op.kind == FT_OP_ADD && !stop ? gradient(net, op.in[1]) : 0;
    if (other && other != dy)
        ft_copy_gradient(other, dy, floats, step->accumulate[op.in[0] != op.in[1]]);
    if (!dx && op.kind != FT_OP_BATCHNORM && op.kind != FT_OP_GROUPNORM)
        return;
    switch (op.kind) {
    case FT_OP_BATCHNORM:
    case FT_OP_GROUPNORM:
        backward_norm(net, &op, step, batch, gradients, dx, dy, x);
        break;
    case FT_OP_RELU:
    case FT_OP_RELU6:
        ft_relu_backward(dx, dy, value(net, FT_PASS_TRAIN, op.out), limit_of(&op), floats, accumulate);
        break;
    case FT_OP_MAXPOOL:
    case FT_OP_AVGPOOL: {
        ft_pool p = pool_of(net, &op);
        if (op.kind == FT_OP_MAXPOOL)
            ft_pool_max_backward(dx, dy, x, &p, in_maps, accumulate);
        else
            ft_pool_average_backward(dx, dy, &p, in_maps, accumulate);
        break;
    }
    default: /* add, flatten */
        ft_copy_gradient(dx, dy, floats, accumulate || (op.kind == FT_OP_ADD && op.in[0] == op.in[1]));
        break;
    }
}

void ft_net_backward(ft_net *net, uint32_t batch, float *gradients, uint32_t last)
{
    for (uint32_t i = net->blob.ops; i-- > last;)
        backward_op(net, i, batch, gradients, i == last && last > 0);
}

void ft_net_dense_rows(ft_net *net, uint32_t op_index, uint32_t batch, const uint16_t *positions, uint32_t row,
                       uint32_t rows, float *dw)
{
    ft_op op = ft_blob_op(&net->blob, op_index);
    ft_taps whole = {0, positions, 0}; /* every position, no values */
    const float *dy = gradient(net, op.out), *x = value(net, FT_PASS_TRAIN, op.in[0]);
    ft_shape in = ft_blob_tensor(&net->blob, op.in[0]), out = ft_blob_tensor(&net->blob, op.out);
    if (op.kind == FT_OP_LINEAR) {
        ft_linear_backward_weight(dw, dy, x, &whole, in.c, out.c, batch, scratch(net, FT_PASS_SCORE), row, rows);
        return;
    }
    ft_conv c = ft_plan_conv(&net->blob, &op);
    ft_conv_backward_weight(dw, dy, x, &whole, &c, batch, scratch(net, FT_PASS_SCORE), row, rows);
}
