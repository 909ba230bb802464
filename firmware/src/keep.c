#include "keep.h"

#include <string.h>

#include "op/lean.h"
#include "op/pack.h"
#include "op/pointwise.h"

enum { DEPTH_MOST = 6 };    /* derivations in a row: bounds recursion and work */
enum { PIXELS_LEAST = 16 }; /* smaller maps are kept whole: a packed channel's range would cost what it saves */

static bool is_relu(uint8_t kind) { return kind == FT_OP_RELU || kind == FT_OP_RELU6; }
static bool is_norm(uint8_t kind) { return kind == FT_OP_BATCHNORM || kind == FT_OP_GROUPNORM; }

uint32_t ft_keep_root(const ft_blob *blob, uint32_t tensor)
{
    for (uint32_t i = blob->ops; i-- > 0;) {
        ft_op op = ft_blob_op(blob, i);
        if (op.out == tensor && op.kind == FT_OP_FLATTEN)
            tensor = op.in[0];
    }
    return tensor;
}

bool ft_keep_picks(const ft_config *config, const ft_op *op)
{
    return config->lean && op->kind == FT_OP_MAXPOOL && ft_pool_can_pick(op->kh, op->kw);
}

bool ft_keep_masks(const ft_blob *blob, const ft_config *config, const ft_op *relu)
{
    uint32_t found = 0;
    if (!is_relu(relu->kind) || relu->out == blob->output)
        return false;
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        if (op.in[0] != relu->out && op.in[1] != relu->out)
            continue;
        if (!ft_keep_picks(config, &op))
            return false;
        found++;
    }
    return found == 1;
}

/* A depthwise convolution's channel follows from one input channel; recomputed where a plan asks for little memory. */
static bool channel_by_channel(const ft_conv *c)
{
    return c->groups == c->ci && ft_lean_in_place(c);
}

static ft_conv one_channel(ft_conv c)
{
    c.ci = c.co = c.groups = 1;
    ft_conv_derive(&c);
    return c;
}

static bool available(const ft_place *place, bool *adds, uint8_t *depth)
{
    *adds = *adds || place->adds;
    *depth = place->depth > *depth ? place->depth : *depth;
    return place->kept != FT_KEPT_NOT;
}

/* Fills in how a tensor is derived, if it can be. */
static bool derive(const ft_blob *blob, const ft_config *config, ft_place *places, uint32_t tensor)
{
    uint32_t writer = ft_blob_writer(blob, tensor);
    ft_place *place = &places[tensor];
    bool adds = false;
    uint8_t depth = 0;
    if (writer == FT_NONE)
        return false;
    ft_op op = ft_blob_op(blob, writer);
    if (op.kind == FT_OP_ADD) {
        bool left = available(&places[op.in[0]], &adds, &depth), right = available(&places[op.in[1]], &adds, &depth);
        /* one temporary map serves every sum: a chain of them, not a tree */
        if (!left || !right || (places[op.in[0]].adds && places[op.in[1]].adds))
            return false;
        adds = true;
    } else if (is_relu(op.kind) || is_norm(op.kind)) {
        if (!available(&places[op.in[0]], &adds, &depth))
            return false;
    } else if (op.kind == FT_OP_CONV2D && config->lean) {
        ft_conv c = ft_plan_conv(blob, &op);
        if (op.eps > 0.0f || !channel_by_channel(&c) || !available(&places[op.in[0]], &adds, &depth))
            return false;
    } else {
        return false;
    }
    if (depth >= DEPTH_MOST)
        return false;
    place->kept = FT_KEPT_DERIVED;
    place->adds = adds;
    place->depth = (uint8_t)(depth + 1);
    return true;
}

static void need(uint32_t *until, uint32_t tensor, uint32_t time)
{
    if (time > until[tensor])
        until[tensor] = time;
}

static void note_needs(const ft_blob *blob, const ft_config *config, uint32_t first, ft_place *places, uint32_t *until)
{
    for (uint32_t i = first; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        uint32_t time = 2u * blob->ops - i, root = ft_keep_root(blob, op.in[0]);
        if (op.kind == FT_OP_CONV2D || op.kind == FT_OP_LINEAR || is_norm(op.kind)
            || (op.kind == FT_OP_MAXPOOL && !ft_keep_picks(config, &op))) {
            need(until, root, time);
            if (root != op.in[0] && op.kind != FT_OP_LINEAR)
                places[root].whole = true; /* its channels are not this operator's */
        } else if (is_relu(op.kind) && !ft_keep_masks(blob, config, &op)) {
            need(until, op.out, time);
        }
    }
}

static uint8_t kept_form(const ft_blob *blob, const ft_config *config, const ft_place *place, uint32_t tensor)
{
    ft_shape s = ft_blob_tensor(blob, tensor);
    if (config->keep == FT_KEEP_F32 || place->whole || (uint32_t)s.h * s.w < PIXELS_LEAST)
        return FT_KEPT_WHOLE;
    return config->keep == FT_KEEP_F16 ? FT_KEPT_F16 : FT_KEPT_INT8;
}

void ft_keep_choose(const ft_blob *blob, const ft_config *config, uint32_t first, ft_place *places, uint32_t *until)
{
    for (uint32_t t = 0; t < blob->tensors; t++) {
        places[t].root = (uint16_t)ft_keep_root(blob, t);
        places[t].writer = (uint16_t)ft_blob_writer(blob, t);
        places[t].kept = FT_KEPT_NOT;
        places[t].adds = places[t].whole = false;
        places[t].depth = 0;
        until[t] = 0;
    }
    note_needs(blob, config, first, places, until);
    if (until[blob->input])
        places[blob->input].kept = kept_form(blob, config, &places[blob->input], blob->input);
    for (uint32_t i = 0; i < blob->ops; i++) {
        uint32_t t = ft_blob_op(blob, i).out;
        if (until[t] && (places[t].whole || !derive(blob, config, places, t)))
            places[t].kept = kept_form(blob, config, &places[t], t);
        else if (!until[t] && !derive(blob, config, places, t))
            places[t].kept = FT_KEPT_NOT;
    }
    for (uint32_t i = blob->ops; i-- > 0;) { /* what a derived tensor follows from is needed as long as it is */
        ft_op op = ft_blob_op(blob, i);
        if (places[op.out].kept != FT_KEPT_DERIVED || !until[op.out])
            continue;
        for (int k = 0; k < 2; k++)
            if (op.in[k] != FT_NONE)
                need(until, op.in[k], until[op.out]);
    }
}

uint32_t ft_keep_floats(const ft_blob *blob, const ft_place *places, uint32_t tensor)
{
    ft_shape s = ft_blob_tensor(blob, tensor);
    return ft_pack_floats(places[tensor].kept, s.c, (uint32_t)s.h * s.w);
}

uint32_t ft_keep_temp(const ft_blob *blob, const ft_place *places, uint32_t tensor)
{
    tensor = places[tensor].root;
    if (places[tensor].kept != FT_KEPT_DERIVED)
        return 0;
    ft_op op = ft_blob_op(blob, places[tensor].writer);
    ft_shape s = ft_blob_tensor(blob, tensor);
    uint32_t own = 0, below = ft_keep_temp(blob, places, op.in[0]);
    if (op.kind == FT_OP_ADD) {
        own = ft_keep_temp(blob, places, op.in[1]);
        own = (uint32_t)s.h * s.w + (below > own ? below : own);
    } else if (op.kind == FT_OP_CONV2D) {
        ft_conv c = one_channel(ft_plan_conv(blob, &op));
        own = ft_lean_forward_scratch(&c);
    }
    return own > below ? own : below;
}

static bool packed(const ft_place *place) { return place->kept == FT_KEPT_F16 || place->kept == FT_KEPT_INT8; }

static float *packed_at(const ft_net *net, uint32_t tensor, uint32_t sample)
{
    return net->work + net->layout.places[tensor].kept_at
           + (size_t)sample * ft_keep_floats(&net->blob, net->layout.places, tensor);
}

void ft_keep_save(const ft_net *net, uint32_t tensor, uint32_t batch)
{
    const ft_place *place = &net->layout.places[tensor];
    ft_shape s = ft_blob_tensor(&net->blob, tensor);
    uint32_t pixels = (uint32_t)s.h * s.w;
    const float *x = ft_net_value(net, FT_PASS_TRAIN, tensor);
    if (!packed(place) || place->kept_at == FT_NOWHERE)
        return;
    for (uint32_t b = 0; b < batch; b++)
        for (uint32_t c = 0; c < s.c; c++, x += pixels)
            ft_pack_channel(packed_at(net, tensor, b), place->kept, s.c, pixels, c, x);
}

const float *ft_keep_whole(const ft_net *net, uint32_t tensor)
{
    tensor = net->layout.places[tensor].root;
    return net->layout.places[tensor].kept == FT_KEPT_WHOLE ? ft_net_value(net, FT_PASS_TRAIN, tensor) : 0;
}

static void again_norm(const ft_net *net, const ft_op *op, uint32_t writer, uint32_t sample, uint32_t channel, float *x,
                       uint32_t pixels)
{
    const float *kept = net->kept + net->layout.steps[writer].kept_at;
    uint32_t channels = ft_blob_tensor(&net->blob, op->in[0]).c;
    kept += 2 * (op->kind == FT_OP_BATCHNORM ? channel : sample * op->groups + channel / (channels / op->groups));
    float gamma = net->weights[net->layout.slots[op->param[0]].start + channel];
    float beta = net->weights[net->layout.slots[op->param[1]].start + channel];
    ft_norm_run(x, x, kept, gamma, beta, pixels);
}

static void again_depthwise(const ft_net *net, const ft_op *op, uint32_t channel, float *x, float *temp)
{
    ft_conv c = one_channel(ft_plan_conv(&net->blob, op));
    ft_taps taps = ft_net_taps(net, op->param[0]);
    uint32_t before = channel * c.row_len;
    if (taps.counts) {
        before = 0;
        for (uint32_t i = 0; i < channel; i++)
            before += taps.counts[i];
        taps.at += before;
        taps.counts += channel;
    }
    taps.values += before;
    const float *bias = op->param[1] == FT_NONE ? 0 : net->weights + net->layout.slots[op->param[1]].start + channel;
    ft_lean_forward(x, x, &taps, bias, &c, temp);
}

void ft_keep_channel(const ft_net *net, float *out, uint32_t tensor, uint32_t sample, uint32_t channel, float *temp)
{
    tensor = net->layout.places[tensor].root;
    const ft_place *place = &net->layout.places[tensor];
    ft_shape s = ft_blob_tensor(&net->blob, tensor);
    uint32_t pixels = (uint32_t)s.h * s.w;
    if (place->kept == FT_KEPT_WHOLE) {
        const float *x = ft_net_value(net, FT_PASS_TRAIN, tensor) + ((size_t)sample * s.c + channel) * pixels;
        memcpy(out, x, pixels * sizeof *out);
        return;
    }
    if (packed(place)) {
        ft_pack_restore(out, packed_at(net, tensor, sample), place->kept, s.c, pixels, channel);
        return;
    }
    uint32_t writer = place->writer;
    ft_op op = ft_blob_op(&net->blob, writer);
    if (op.kind == FT_OP_ADD) { /* the side with sums of its own goes first, while temp is free */
        uint32_t first = net->layout.places[op.in[1]].adds ? 1 : 0;
        ft_keep_channel(net, out, op.in[first], sample, channel, temp);
        ft_keep_channel(net, temp, op.in[1 - first], sample, channel, temp + pixels);
        ft_add_forward(out, out, temp, pixels);
        return;
    }
    ft_keep_channel(net, out, op.in[0], sample, channel, temp);
    if (is_relu(op.kind))
        ft_relu_forward(out, out, ft_net_limit(&op), pixels);
    else if (is_norm(op.kind))
        again_norm(net, &op, writer, sample, channel, out, pixels);
    else
        again_depthwise(net, &op, channel, out, temp);
}

void ft_keep_sample(const ft_net *net, float *out, uint32_t tensor, uint32_t sample, float *temp)
{
    ft_shape s = ft_blob_tensor(&net->blob, net->layout.places[tensor].root);
    for (uint32_t c = 0; c < s.c; c++)
        ft_keep_channel(net, out + (size_t)c * s.h * s.w, tensor, sample, c, temp);
}
