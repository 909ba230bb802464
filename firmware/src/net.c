#include "net.h"

#include "keep.h"
#include "num.h"
#include "op/lean.h"
#include "op/loss.h"
#include "op/pointwise.h"
#include "op/standard.h"

static const float *weights_of(const ft_net *net, uint32_t param)
{
    return param == FT_NONE ? 0 : net->weights + net->layout.slots[param].start;
}

ft_taps ft_net_taps(const ft_net *net, uint32_t param)
{
    ft_param p = ft_blob_param(&net->blob, param);
    const uint16_t *indices = net->indices + net->layout.slots[param].index_at;
    bool whole = net->layout.slots[param].whole;
    ft_taps taps = {weights_of(net, param), whole ? indices : indices + p.dim[0], whole ? 0 : indices};
    return taps;
}

ft_taps ft_net_conv_taps(const ft_net *net, const ft_op *op, const ft_conv *c, float **buffer)
{
    ft_taps taps = ft_net_taps(net, op->param[0]);
    if (op->eps > 0.0f) {
        ft_standard_forward(*buffer, &taps, c->co, c->row_len, op->eps);
        taps.values = *buffer;
        *buffer += ft_blob_param(&net->blob, op->param[0]).live;
    }
    return taps;
}

/* Of the layer that a parameter belongs to; a linear one is a 1x1 convolution of 1x1 maps. */
static ft_conv geometry(const ft_net *net, uint32_t param)
{
    const ft_conv linear = {.kh = 1, .kw = 1, .sh = 1, .sw = 1, .plane = 1};
    ft_op op = ft_blob_op(&net->blob, ft_blob_user(&net->blob, param));
    return op.kind == FT_OP_CONV2D ? ft_plan_conv(&net->blob, &op) : linear;
}

void ft_net_positions(const ft_net *net, uint32_t param, uint16_t *positions)
{
    ft_param p = ft_blob_param(&net->blob, param);
    ft_conv c = geometry(net, param);
    for (uint32_t i = 0; i < p.elements / p.dim[0]; i++)
        positions[i] = (uint16_t)ft_conv_position(&c, i);
}

void ft_net_build_indices(ft_net *net, uint32_t param, ft_mask *mask)
{
    ft_param p = ft_blob_param(&net->blob, param);
    ft_conv c = geometry(net, param);
    ft_slot *slot = &net->layout.slots[param];
    uint32_t row_len = p.elements / p.dim[0], index, live = 0;
    uint16_t *counts = net->indices + slot->index_at, *bitmap = counts + row_len;
    if (slot->whole)
        ft_net_positions(net, param, counts);
    if (!mask)
        return;
    memset(slot->whole ? bitmap : counts, 0, (slot->whole ? p.elements / 16 : p.dim[0]) * sizeof *counts);
    if (slot->whole) /* nothing to prune behind the last weight */
        bitmap[p.elements / 16] = (uint16_t)(0xFFFFu << p.elements % 16);
    for (; ft_mask_next(mask, &index); live++) {
        if (slot->whole) {
            bitmap[index / 16] |= (uint16_t)(1u << index % 16);
            continue;
        }
        counts[index / row_len]++;
        counts[p.dim[0] + live] = (uint16_t)ft_conv_position(&c, index % row_len);
    }
    slot->live = live;
    if (!slot->whole)
        slot->held = live;
}

const uint16_t *ft_net_bitmap(const ft_net *net, uint32_t param)
{
    ft_param p = ft_blob_param(&net->blob, param);
    const ft_slot *slot = &net->layout.slots[param];
    return slot->whole && p.storage != FT_STORAGE_DENSE ? net->indices + slot->index_at + p.elements / p.dim[0] : 0;
}

void ft_net_mask(const ft_net *net, uint32_t param, uint8_t *bitmap)
{
    ft_param p = ft_blob_param(&net->blob, param);
    ft_conv c = geometry(net, param);
    const uint16_t *whole = ft_net_bitmap(net, param), *counts = net->indices + net->layout.slots[param].index_at;
    const uint16_t *at = counts + p.dim[0];
    uint32_t row_len = p.elements / p.dim[0], left = 0;
    memset(bitmap, 0, p.elements / 8 + (p.elements % 8 != 0));
    for (uint32_t i = 0; i < p.elements; i++) {
        bool lives;
        if (whole) {
            lives = ft_net_lives(whole, i);
        } else {
            if (i % row_len == 0)
                left = counts[i / row_len];
            lives = left && *at == ft_conv_position(&c, i % row_len);
            at += lives;
            left -= lives;
        }
        bitmap[i / 8] |= (uint8_t)(lives << i % 8);
    }
}

uint32_t ft_net_held(const ft_net *net)
{
    uint32_t held = 0;
    for (uint32_t i = 0; i < net->blob.params; i++)
        held += net->layout.slots[i].held;
    return held;
}

void ft_net_gather(const ft_net *net, float *vector, const float *held, uint32_t param)
{
    for (; param < net->blob.params; param++) {
        const uint16_t *bitmap = ft_net_bitmap(net, param);
        for (uint32_t i = 0; i < net->layout.slots[param].held; i++, held++)
            if (ft_net_lives(bitmap, i))
                *vector++ = *held;
    }
}

void ft_net_prune(const ft_net *net, float *held, uint32_t param)
{
    const ft_slot *slot = &net->layout.slots[param];
    const uint16_t *bitmap = slot->held == slot->live ? 0 : ft_net_bitmap(net, param);
    for (uint32_t i = 0; bitmap && i < slot->held; i += 16) {
        float *at = held + i;
        for (uint32_t pruned = (uint16_t)~*bitmap++; pruned; at++, pruned >>= 1)
            if (pruned & 1)
                *at = 0.0f;
    }
}

static uint32_t placed_batch(const ft_net *net, ft_pass pass)
{
    return pass == FT_PASS_INFER ? 1 : net->config.micro_batch;
}

static bool trains(ft_pass pass) { return pass == FT_PASS_TRAIN || pass == FT_PASS_SCORE; }

/* In forward passes tensors lie at their per-sample offset times the planned micro-batch, however many samples there are. */
float *ft_net_value(const ft_net *net, ft_pass pass, uint32_t tensor)
{
    const ft_place *place = &net->layout.places[tensor];
    return net->work + (trains(pass) ? place->train_at : (size_t)place->forward_at * placed_batch(net, pass));
}

float *ft_net_gradient(const ft_net *net, uint32_t tensor)
{
    uint32_t at = net->layout.places[tensor].gradient_at;
    return at == FT_NOWHERE ? 0 : net->work + at;
}

static float *scratch(const ft_net *net, ft_pass pass, uint32_t index)
{
    if (!trains(pass))
        return net->work + (size_t)net->layout.forward_floats * placed_batch(net, pass);
    uint32_t at = net->layout.steps[index].forward_scratch;
    return at == FT_NOWHERE ? 0 : net->work + at;
}

float *ft_net_input(const ft_net *net, ft_pass pass) { return ft_net_value(net, pass, net->blob.input); }
float *ft_net_output(const ft_net *net, ft_pass pass) { return ft_net_value(net, pass, net->blob.output); }

ft_norm ft_net_norm(const ft_net *net, const ft_op *op)
{
    ft_shape s = ft_blob_tensor(&net->blob, op->in[0]);
    ft_norm n = {s.c, (uint32_t)s.h * s.w, op->groups, op->eps};
    return n;
}

ft_pool ft_net_pool(const ft_net *net, const ft_op *op)
{
    ft_shape in = ft_blob_tensor(&net->blob, op->in[0]), out = ft_blob_tensor(&net->blob, op->out);
    ft_pool p = {in.h, in.w, out.h, out.w, op->kh, op->kw, op->sh, op->sw, op->pt, op->pl,
                 (op->flags & FT_FLAG_COUNT_PAD) != 0};
    return p;
}

float ft_net_limit(const ft_op *relu) { return relu->kind == FT_OP_RELU6 ? 6.0f : ft_num_from_bits(0x7F800000u); }

static void forward_batchnorm(ft_net *net, ft_pass pass, const ft_op *op, const ft_step *step, uint32_t batch,
                              ft_moments moments, float *y, const float *x)
{
    ft_norm n = ft_net_norm(net, op);
    bool before = step < net->layout.steps + net->layout.first_op; /* what does not train */
    bool constant = pass == FT_PASS_INFER || (trains(pass) && (net->config.norm == FT_NORM_FROZEN || before));
    float *sum = moments.vector && !constant ? moments.vector + step->statistic_at : 0;
    ft_norm_batch_forward(y, x, weights_of(net, op->param[0]), weights_of(net, op->param[1]), &n, batch,
                          net->kept + step->kept_at, constant ? net->stats + step->statistic_at : 0, sum,
                          sum ? sum + n.channels : 0, moments.samples * n.pixels);
}

static void pick_winners(const ft_net *net, const ft_op *op, uint8_t *picks, const float *x, const ft_pool *p,
                         uint32_t maps)
{
    uint32_t writer = ft_blob_writer(&net->blob, op->in[0]);
    ft_op before = writer == FT_NONE ? *op : ft_blob_op(&net->blob, writer);
    ft_pool_pick_forward(picks, x, p, maps, ft_keep_masks(&net->blob, &net->config, &before), ft_net_limit(&before));
}

static void forward_op(ft_net *net, ft_pass pass, uint32_t index, uint32_t batch, ft_moments moments)
{
    ft_op op = ft_blob_op(&net->blob, index);
    const ft_step *step = &net->layout.steps[index];
    ft_shape in = ft_blob_tensor(&net->blob, op.in[0]), out = ft_blob_tensor(&net->blob, op.out);
    float *y = ft_net_value(net, pass, op.out), *buffer = scratch(net, pass, index);
    const float *x = ft_net_value(net, pass, op.in[0]);
    switch (op.kind) {
    case FT_OP_CONV2D: {
        ft_conv c = ft_plan_conv(&net->blob, &op);
        ft_taps taps = ft_net_conv_taps(net, &op, &c, &buffer);
        const float *bias = weights_of(net, op.param[1]);
        if (!net->config.lean)
            ft_conv_forward(y, x, &taps, bias, &c, batch, buffer);
        for (uint32_t b = 0; net->config.lean && b < batch; b++)
            ft_lean_forward(y + b * ft_shape_size(out), x + b * ft_shape_size(in), &taps, bias, &c, buffer);
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
        ft_norm n = ft_net_norm(net, &op);
        ft_norm_group_forward(y, x, weights_of(net, op.param[0]), weights_of(net, op.param[1]), &n, batch,
                              net->kept + step->kept_at);
        break;
    }
    case FT_OP_RELU:
    case FT_OP_RELU6:
        ft_relu_forward(y, x, ft_net_limit(&op), batch * ft_shape_size(out));
        break;
    case FT_OP_MAXPOOL:
    case FT_OP_AVGPOOL: {
        ft_pool p = ft_net_pool(net, &op);
        if (op.kind == FT_OP_MAXPOOL)
            ft_pool_max_forward(y, x, &p, batch * in.c);
        else
            ft_pool_average_forward(y, x, &p, batch * in.c);
        if (trains(pass) && step->picks_at != FT_NOWHERE)
            pick_winners(net, &op, (uint8_t *)(net->work + step->picks_at), x, &p, batch * in.c);
        break;
    }
    case FT_OP_ADD:
        ft_add_forward(y, x, ft_net_value(net, pass, op.in[1]), batch * ft_shape_size(out));
        break;
    default: /* flatten shares its input's memory */
        break;
    }
}

void ft_net_forward(ft_net *net, ft_pass pass, uint32_t batch, ft_moments moments)
{
    if (trains(pass))
        ft_keep_save(net, net->blob.input, batch);
    for (uint32_t i = 0; i < net->blob.ops; i++) {
        forward_op(net, pass, i, batch, moments);
        if (trains(pass))
            ft_keep_save(net, ft_blob_op(&net->blob, i).out, batch);
    }
}

ft_status ft_net_read(ft_net *net, ft_pass pass, const ft_data *data, uint32_t first, uint32_t batch, uint32_t key,
                      bool shuffled)
{
    float *x = ft_net_input(net, pass);
    uint32_t size = ft_shape_size(ft_blob_tensor(&net->blob, net->blob.input));
    uint32_t classes = ft_shape_size(ft_blob_tensor(&net->blob, net->blob.output));
    for (uint32_t i = 0; i < batch; i++, x += size) {
        uint32_t index = shuffled ? ft_shuffle(first + i, data->count, key) : first + i;
        if (data->read(data->ctx, index, x, &net->labels[i]) != 0 || (net->labels[i] >= classes && net->config.loss != FT_LOSS_RECONSTRUCTION))
            return FT_ERR_DATA;
        if (!ft_num_all_finite(x, size))
            return FT_ERR_NONFINITE;
    }
    return FT_OK;
}

ft_status ft_net_loss(ft_net *net, ft_pass pass, uint32_t batch, ft_score_sum *sum)
{
    uint32_t classes = ft_shape_size(ft_blob_tensor(&net->blob, net->blob.output));
    const float *logits = ft_net_output(net, pass);
    float *dlogits = trains(pass) ? ft_net_gradient(net, net->blob.output) : 0;
    for (uint32_t i = 0; i < batch; i++) {
        uint32_t hit, label = net->labels[i];
        float loss, weight = 1.0f / (float)batch, *into = dlogits ? dlogits + i * classes : 0;
        const float *y = logits + i * classes, *target = 0;
        if (net->config.loss == FT_LOSS_RECONSTRUCTION)
            target = ft_net_input(net, pass) + i * classes;
        if (net->config.loss == FT_LOSS_CROSS_ENTROPY)
            loss = ft_loss_cross_entropy(into, &hit, y, label, weight, classes);
        else
            loss = ft_loss_squared(into, &hit, y, target, label, weight, classes);
        if (!ft_num_finite(loss))
            return FT_ERR_NONFINITE;
        ft_num_add(&sum->loss_sum, loss);
        sum->correct += hit;
        sum->samples++;
    }
    return FT_OK;
}
