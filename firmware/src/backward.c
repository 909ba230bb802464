#include "backward.h"

#include <string.h>

#include "keep.h"
#include "op/lean.h"
#include "op/pointwise.h"
#include "op/standard.h"

/* One operator's turn. Scratch is laid out as plan.c's backward_scratch counts it. */
typedef struct {
    ft_net *net;
    ft_op op;
    const ft_step *step;
    uint32_t batch;
    ft_shape in, out;
    float *dx;        /* NULL: not wanted */
    float *dy;
    const float *x;   /* the input where it is kept whole, or NULL */
    bool accumulate;  /* dx */
    float *scratch;
    ft_gradients into;
} turn;

static uint32_t pixels(ft_shape s) { return (uint32_t)s.h * s.w; }

ft_gradients ft_backward_into(const ft_net *net, uint32_t index, float *gradients)
{
    ft_op op = ft_blob_op(&net->blob, index);
    ft_gradients into = {0, 0};
    uint32_t first = ft_plan_first_value(&net->layout);
    if (gradients && op.param[0] != FT_NONE)
        into.first = gradients + (net->layout.slots[op.param[0]].start - first);
    if (gradients && op.param[1] != FT_NONE)
        into.second = gradients + (net->layout.slots[op.param[1]].start - first);
    return into;
}

/* The weight gradient of all samples, one after the other where the input must be made again. */
static void conv_weights(const turn *t, float *dw, const ft_taps *taps, const ft_conv *c, uint32_t row, uint32_t rows)
{
    if (t->x) {
        ft_conv_backward_weight(dw, t->dy, t->x, taps, c, t->batch, t->scratch, row, rows);
        return;
    }
    float *x = t->scratch + ft_conv_scratch(c), *temp = x + ft_shape_size(t->in);
    for (uint32_t b = 0; b < t->batch; b++) {
        ft_keep_sample(t->net, x, t->op.in[0], b, temp);
        ft_conv_backward_weight(dw, t->dy + (size_t)b * ft_shape_size(t->out), x, taps, c, 1, t->scratch, row, rows);
    }
}

static void lean_weights(const turn *t, float *dw, const ft_taps *taps, const ft_conv *c)
{
    uint32_t most = ft_lean_channels(c), map = pixels(t->in);
    float *made = t->scratch + ft_lean_weight_scratch(c), *temp = made + most * map;
    for (uint32_t b = 0; b < t->batch; b++)
        for (uint32_t first = 0; first < c->ci; first += most) {
            uint32_t count = c->ci - first < most ? c->ci - first : most;
            const float *x = t->x ? t->x + ((size_t)b * c->ci + first) * map : made;
            for (uint32_t k = 0; !t->x && k < count; k++)
                ft_keep_channel(t->net, made + k * map, t->op.in[0], b, first + k, temp);
            ft_lean_backward_weight(dw, t->dy + (size_t)b * ft_shape_size(t->out), x, taps, c, first, count, t->scratch);
        }
}

static void backward_conv(turn *t)
{
    ft_conv c = ft_plan_conv(&t->net->blob, &t->op);
    ft_taps stored = ft_net_taps(t->net, t->op.param[0]), taps = ft_net_conv_taps(t->net, &t->op, &c, &t->scratch);
    bool lean = t->net->config.lean;
    if (t->into.second)
        ft_conv_backward_bias(t->into.second, t->dy, t->out.c, pixels(t->out), t->batch);
    if (t->into.first && lean)
        lean_weights(t, t->into.first, &taps, &c);
    else if (t->into.first)
        conv_weights(t, t->into.first, &taps, &c, 0, c.co);
    if (t->into.first && t->op.eps > 0.0f)
        ft_standard_backward(t->into.first, &stored, c.co, c.row_len, t->op.eps);
    if (t->dx && !lean)
        ft_conv_backward_input(t->dx, t->dy, &taps, &c, t->batch, t->scratch, t->accumulate);
    for (uint32_t b = 0; t->dx && lean && b < t->batch; b++)
        ft_lean_backward_input(t->dx + (size_t)b * ft_shape_size(t->in), t->dy + (size_t)b * ft_shape_size(t->out), &taps,
                               &c, t->scratch, t->accumulate);
}

static void linear_weights(const turn *t, float *dw, const ft_taps *taps, uint32_t row, uint32_t rows)
{
    float *made = t->x ? 0 : t->scratch + ft_linear_scratch(t->in.c, t->net->config.micro_batch, t->accumulate);
    for (uint32_t b = 0; made && b < t->batch; b++)
        ft_keep_sample(t->net, made + b * t->in.c, t->op.in[0], b, made + t->net->config.micro_batch * t->in.c);
    ft_linear_backward_weight(dw, t->dy, t->x ? t->x : made, taps, t->in.c, t->out.c, t->batch, t->scratch, row, rows);
}

static void backward_linear(const turn *t)
{
    ft_taps taps = ft_net_taps(t->net, t->op.param[0]);
    if (t->into.second)
        ft_conv_backward_bias(t->into.second, t->dy, t->out.c, 1, t->batch);
    if (t->into.first)
        linear_weights(t, t->into.first, &taps, 0, t->out.c);
    if (t->dx)
        ft_linear_backward_input(t->dx, t->dy, &taps, t->in.c, t->out.c, t->batch, t->scratch, t->accumulate);
}

/* The channel c of samples [first, first + c->runs): in place, or made again in scratch. */
static void norm_input(const turn *t, ft_norm_channel *run, uint32_t first, uint32_t c)
{
    uint32_t channels = t->in.c, size = run->pixels;
    size_t at = ((size_t)first * channels + c) * size;
    run->dy = t->dy + at;
    run->dx = t->dx ? t->dx + at : 0;
    run->x = t->x ? t->x + at : t->scratch;
    run->x_stride = t->x ? run->stride : size;
    for (uint32_t b = 0; !t->x && b < run->runs; b++)
        ft_keep_channel(t->net, t->scratch + b * size, t->op.in[0], first + b, c, t->scratch + run->runs * size);
}

/* Where a channel must be made again, a group's is made twice: its sums come before its gradients. */
static void backward_norm(const turn *t)
{
    const ft_net *net = t->net;
    ft_norm n = ft_net_norm(net, &t->op);
    const float *gamma = net->weights + net->layout.slots[t->op.param[0]].start, *kept = net->kept + t->step->kept_at;
    float *dgamma = t->into.first, *dbeta = t->into.second;
    bool group = t->op.kind == FT_OP_GROUPNORM;
    ft_norm_channel run = {.stride = n.channels * n.pixels, .pixels = n.pixels, .runs = group ? 1 : t->batch,
                           .accumulate = t->accumulate};
    uint32_t members = group ? n.channels / n.groups : 1;
    for (uint32_t sample = 0; sample < (group ? t->batch : 1); sample++)
        for (uint32_t first = 0; first < n.channels; first += members, kept += 2) {
            ft_norm_sums sums = {0.0f, 0.0f};
            for (uint32_t c = first; c < first + members; c++) {
                float *into_gamma = dgamma ? dgamma + c : 0, *into_beta = dgamma ? dbeta + c : 0;
                norm_input(t, &run, sample, c);
                if (group)
                    ft_norm_group_sum(&sums, &run, into_gamma, into_beta, gamma[c], kept);
                else
                    ft_norm_batch_backward(&run, into_gamma, into_beta, gamma[c], kept, net->config.norm == FT_NORM_FROZEN);
            }
            for (uint32_t c = first; group && t->dx && c < first + members; c++) {
                norm_input(t, &run, sample, c);
                ft_norm_group_gradient(&run, sums, gamma[c], kept, members * n.pixels);
            }
        }
}

static void backward_relu(const turn *t)
{
    float limit = ft_net_limit(&t->op);
    uint32_t run = pixels(t->out), floats = t->batch * ft_shape_size(t->out);
    const float *y = ft_keep_whole(t->net, t->op.out);
    if (ft_keep_masks(&t->net->blob, &t->net->config, &t->op)) { /* the pool behind it passed gradients to live winners only */
        ft_copy_gradient(t->dx, t->dy, floats, t->accumulate);
        return;
    }
    if (y) {
        ft_relu_backward(t->dx, t->dy, y, limit, floats, t->accumulate);
        return;
    }
    for (uint32_t i = 0; i < t->batch * t->out.c; i++) {
        ft_keep_channel(t->net, t->scratch, t->op.out, i / t->out.c, i % t->out.c, t->scratch + run);
        ft_relu_backward(t->dx + (size_t)i * run, t->dy + (size_t)i * run, t->scratch, limit, run, t->accumulate);
    }
}

static void backward_maxpool(const turn *t)
{
    ft_pool p = ft_net_pool(t->net, &t->op);
    uint32_t run = pixels(t->in), maps = t->batch * t->in.c;
    if (t->step->picks_at != FT_NOWHERE) {
        ft_pool_pick_backward(t->dx, t->dy, (const uint8_t *)(t->net->work + t->step->picks_at), &p, maps, t->accumulate);
        return;
    }
    if (t->x) {
        ft_pool_max_backward(t->dx, t->dy, t->x, &p, maps, t->accumulate);
        return;
    }
    for (uint32_t i = 0; i < maps; i++) {
        ft_keep_channel(t->net, t->scratch, t->op.in[0], i / t->in.c, i % t->in.c, t->scratch + run);
        ft_pool_max_backward(t->dx + (size_t)i * run, t->dy + (size_t)i * pixels(t->out), t->scratch, &p, 1, t->accumulate);
    }
}

static turn turn_of(ft_net *net, uint32_t index, uint32_t batch, ft_gradients into, bool to_input)
{
    turn t = {.net = net, .op = ft_blob_op(&net->blob, index), .step = &net->layout.steps[index], .batch = batch,
              .into = into};
    t.in = ft_blob_tensor(&net->blob, t.op.in[0]);
    t.out = ft_blob_tensor(&net->blob, t.op.out);
    t.dx = to_input ? ft_net_gradient(net, t.op.in[0]) : 0;
    t.dy = ft_net_gradient(net, t.op.out);
    t.x = ft_keep_whole(net, t.op.in[0]);
    t.accumulate = t.step->accumulate[0];
    t.scratch = t.step->backward_scratch == FT_NOWHERE ? 0 : net->work + t.step->backward_scratch;
    return t;
}

void ft_backward_op(ft_net *net, uint32_t index, uint32_t batch, ft_gradients into, bool to_input)
{
    turn t = turn_of(net, index, batch, into, to_input);
    uint32_t floats = batch * ft_shape_size(t.out);
    /* an add's second input first: the first one's gradient may be dy's own memory */
    float *other = t.op.kind == FT_OP_ADD && to_input ? ft_net_gradient(net, t.op.in[1]) : 0;
    if (other && other != t.dy)
        ft_copy_gradient(other, t.dy, floats, t.step->accumulate[t.op.in[0] != t.op.in[1]]);
    if (!t.dx && !t.into.first && !t.into.second)
        return;
    switch (t.op.kind) {
    case FT_OP_CONV2D:
        backward_conv(&t);
        break;
    case FT_OP_LINEAR:
        backward_linear(&t);
        break;
    case FT_OP_BATCHNORM:
    case FT_OP_GROUPNORM:
        backward_norm(&t);
        break;
    case FT_OP_RELU:
    case FT_OP_RELU6:
        backward_relu(&t);
        break;
    case FT_OP_MAXPOOL:
        backward_maxpool(&t);
        break;
    case FT_OP_AVGPOOL: {
        ft_pool p = ft_net_pool(net, &t.op);
        ft_pool_average_backward(t.dx, t.dy, &p, batch * t.in.c, t.accumulate);
        break;
    }
    default: /* add, flatten */
        ft_copy_gradient(t.dx, t.dy, floats, t.accumulate || (t.op.kind == FT_OP_ADD && t.op.in[0] == t.op.in[1]));
        break;
    }
    if (into.first) /* what is pruned stays 0: it gets no gradient */
        ft_net_prune(net, into.first, t.op.param[0]);
}

void ft_backward_run(ft_net *net, uint32_t batch, float *gradients, uint32_t last)
{
    for (uint32_t i = net->blob.ops; i-- > last;)
        ft_backward_op(net, i, batch, ft_backward_into(net, i, gradients), !(i == last && last > 0));
}

void ft_backward_dense_rows(ft_net *net, uint32_t index, uint32_t batch, const uint16_t *positions, uint32_t row,
                            uint32_t rows, float *dw)
{
    ft_gradients none = {0, 0};
    turn t = turn_of(net, index, batch, none, false);
    ft_taps whole = {0, positions, 0}; /* every position, no values */
    if (t.op.kind == FT_OP_LINEAR) {
        linear_weights(&t, dw, &whole, row, rows);
        return;
    }
    ft_conv c = ft_plan_conv(&net->blob, &t.op);
    conv_weights(&t, dw, &whole, &c, row, rows);
}
