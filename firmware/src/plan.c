#include "plan.h"

#include <string.h>

#include "keep.h"
#include "op/lean.h"
#include "op/taps.h"
#include "place.h"

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

ft_conv ft_plan_conv(const ft_blob *blob, const ft_op *op)
{
    ft_shape in = ft_blob_tensor(blob, op->in[0]), out = ft_blob_tensor(blob, op->out);
    ft_conv c = {.ci = in.c, .h = in.h, .w = in.w, .co = out.c, .ho = out.h, .wo = out.w, .kh = op->kh, .kw = op->kw,
                 .sh = op->sh, .sw = op->sw, .pt = op->pt, .pl = op->pl, .groups = op->groups};
    ft_conv_derive(&c);
    return c;
}

uint32_t ft_plan_layer_param(const ft_blob *blob, uint32_t layer)
{
    for (uint32_t p = 0; p < blob->params; p++)
        if (ft_blob_param(blob, p).role == FT_ROLE_WEIGHT && layer-- == 0)
            return p;
    return FT_NONE;
}

uint32_t ft_plan_tile_rows(uint32_t tile_bytes, uint32_t row_len, uint32_t rows)
{
    uint32_t fit = tile_bytes / 4 / row_len;
    return fit < 1 ? 1 : fit > rows ? rows : fit;
}

uint32_t ft_plan_table_bytes(const ft_blob *blob)
{
    return (uint32_t)(blob->tensors * sizeof(ft_place) + blob->params * sizeof(ft_slot) + blob->ops * sizeof(ft_step));
}

/* Pieces of training at most: value, packed and gradient of each tensor; winners, gradients and two scratches of each op. */
static uint32_t most_pieces(const ft_blob *blob) { return 3u * blob->tensors + 4u * blob->ops; }

uint32_t ft_plan_bytes(const ft_blob *blob)
{
    return ft_plan_table_bytes(blob) + (uint32_t)(most_pieces(blob) * sizeof(ft_piece) + blob->tensors * sizeof(uint32_t));
}

static bool is_relu(uint8_t kind) { return kind == FT_OP_RELU || kind == FT_OP_RELU6; }
static bool is_norm(uint8_t kind) { return kind == FT_OP_BATCHNORM || kind == FT_OP_GROUPNORM; }

/* Can the operator write its output over its input, and its input's gradient over its output's? */
static bool works_in_place(const ft_blob *blob, const ft_op *op, const ft_config *config)
{
    if (op->kind == FT_OP_CONV2D && config->lean) {
        ft_conv c = ft_plan_conv(blob, op);
        return ft_lean_in_place(&c);
    }
    return is_relu(op->kind) || is_norm(op->kind) || op->kind == FT_OP_ADD;
}

/* May `op` write its output over this input? Flatten always shares. The others need to be the only reader; in training the
 * old content must not be what is kept for backward. */
static bool may_overwrite(const ft_blob *blob, const ft_op *op, uint32_t in, const ft_config *config,
                          const ft_place *places, bool training)
{
    if (op->kind == FT_OP_FLATTEN)
        return true;
    uint32_t writer = ft_blob_writer(blob, in);
    if (!works_in_place(blob, op, config) || writer == FT_NONE || ft_blob_readers(blob, in) != 1
        || ft_blob_op(blob, writer).kind == FT_OP_FLATTEN)
        return false;
    return !training || places[in].kept != FT_KEPT_WHOLE;
}

/* Pieces being collected. `batch` multiplies the size of a tensor. */
typedef struct {
    const ft_blob *blob;
    const ft_config *config;
    ft_piece *pieces;
    uint32_t count, batch;
    uint32_t first; /* operator that runs backward */
} heap;

static uint32_t add_piece(heap *h, uint32_t size, uint32_t begin, uint32_t end)
{
    h->pieces[h->count] = (ft_piece){size, begin, end, 0, 0};
    return h->count++;
}

static uint32_t add_tensor(heap *h, uint32_t tensor, uint32_t time)
{
    return add_piece(h, h->batch * ft_shape_size(ft_blob_tensor(h->blob, tensor)), time, time);
}

static void live_until(heap *h, uint32_t id, uint32_t time) { h->pieces[id].end = larger(h->pieces[id].end, time); }

/* Assigns each tensor's value to a piece; forward_at or train_at holds the piece's number until placement. */
static void value_pieces(heap *h, ft_place *places, const uint32_t *until, bool training)
{
    const ft_blob *blob = h->blob;
#define ID(t) (*(training ? &places[t].train_at : &places[t].forward_at))
    ID(blob->input) = add_tensor(h, blob->input, 0);
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        uint32_t shared = FT_NOWHERE;
        for (int k = 0; k < 2 && op.in[k] != FT_NONE; k++) {
            live_until(h, ID(op.in[k]), i);
            if (shared == FT_NOWHERE && may_overwrite(blob, &op, op.in[k], h->config, places, training))
                shared = ID(op.in[k]);
        }
        ID(op.out) = shared == FT_NOWHERE ? add_tensor(h, op.out, i) : shared;
        live_until(h, ID(op.out), i);
    }
    live_until(h, ID(blob->output), blob->ops);
    if (h->config->loss == FT_LOSS_RECONSTRUCTION)
        live_until(h, ID(blob->input), blob->ops);
    for (uint32_t t = 0; training && t < blob->tensors; t++)
        if (places[t].kept == FT_KEPT_WHOLE)
            live_until(h, ID(t), until[t]);
#undef ID
}

/* What is kept in another form than the tensor itself, from its writer's turn on. */
static void kept_pieces(heap *h, ft_place *places, ft_step *steps, const uint32_t *until)
{
    const ft_blob *blob = h->blob;
    for (uint32_t t = 0; t < blob->tensors; t++) {
        uint32_t writer = ft_blob_writer(blob, t);
        bool packed = places[t].kept == FT_KEPT_F16 || places[t].kept == FT_KEPT_INT8;
        places[t].kept_at = FT_NOWHERE;
        if (packed)
            places[t].kept_at = add_piece(h, h->batch * ft_keep_floats(blob, places, t), writer == FT_NONE ? 0 : writer,
                                          until[t]);
    }
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        uint32_t winners = h->batch * ft_shape_size(ft_blob_tensor(blob, op.out));
        steps[i].picks_at = FT_NOWHERE;
        if (i >= h->first && ft_keep_picks(h->config, &op))
            steps[i].picks_at = add_piece(h, winners / 4 + (winners % 4 != 0), i, 2u * blob->ops - i);
    }
}

/* A convolution that ends one side of an add and runs backward before the other side's end does may read the sum's gradient
 * where it lies: nobody has worked on it yet. */
static bool reads_first(const ft_blob *blob, const ft_op *add, int k, const ft_config *config)
{
    uint32_t mine = ft_blob_writer(blob, add->in[k]), other = ft_blob_writer(blob, add->in[1 - k]);
    if (add->kind != FT_OP_ADD || mine == FT_NONE || other == FT_NONE || mine < other || ft_blob_readers(blob, add->in[k]) != 1)
        return false;
    ft_op op = ft_blob_op(blob, mine);
    return op.kind == FT_OP_CONV2D && (!works_in_place(blob, &op, config) || ft_blob_readers(blob, op.in[0]) != 1);
}

static void gradient_pieces(heap *h, ft_place *places, ft_step *steps)
{
    const ft_blob *blob = h->blob;
    uint32_t n = blob->ops;
    for (uint32_t t = 0; t < blob->tensors; t++)
        places[t].gradient_at = FT_NOWHERE;
    places[blob->output].gradient_at = add_tensor(h, blob->output, n);
    for (uint32_t i = n; i-- > h->first;) {
        ft_op op = ft_blob_op(blob, i);
        uint32_t now = 2 * n - i, from = places[op.out].gradient_at;
        bool passed_on = false;
        for (int k = 0; k < 2; k++) {
            steps[i].accumulate[k] = false;
            uint32_t writer = op.in[k] == FT_NONE ? FT_NONE : ft_blob_writer(blob, op.in[k]);
            if (writer == FT_NONE || writer < h->first)
                continue;
            uint32_t *to = &places[op.in[k]].gradient_at;
            if (*to != FT_NOWHERE) {
                steps[i].accumulate[k] = true;
            } else if (!passed_on && ft_blob_readers(blob, op.in[k]) == 1
                       && (works_in_place(blob, &op, h->config) || op.kind == FT_OP_FLATTEN)) {
                *to = from;
                passed_on = true;
            } else if (k == 1 && passed_on && reads_first(blob, &op, k, h->config)) {
                *to = from;
            } else {
                *to = add_tensor(h, op.in[k], now);
            }
            live_until(h, *to, now);
        }
        live_until(h, from, now);
    }
}

uint32_t ft_plan_first_value(const ft_layout *layout)
{
    return layout->first_op ? layout->slots[layout->first_param].start : 0;
}

/* Finds what the last layers begin with. false: parameters do not stand in the order of their operators, so that what is
 * trained would not be the end of the values vector. */
static bool cut(ft_layout *layout, const ft_blob *blob, uint32_t last_layers)
{
    uint32_t param = blob->params;
    for (uint32_t left = last_layers; left && param-- > 0;)
        left -= ft_blob_param(blob, param).role == FT_ROLE_WEIGHT;
    if (!last_layers || param >= blob->params)
        return true; /* it has no more layers than that */
    layout->first_op = ft_blob_user(blob, param);
    layout->first_param = param;
    for (uint32_t p = 0; p < blob->params; p++)
        if ((p < param) != (ft_blob_user(blob, p) < layout->first_op))
            return false;
    return true;
}

static uint32_t trained_values(const ft_layout *layout, const ft_op *op)
{
    uint32_t values = 0;
    for (int k = 0; k < 2; k++)
        values += op->param[k] == FT_NONE ? 0 : layout->slots[op->param[k]].held;
    return values;
}

/* Floats of the weights that a convolution makes of its stored ones. */
static uint32_t standardised(const ft_blob *blob, const ft_op *op)
{
    return op->eps > 0.0f ? ft_blob_param(blob, op->param[0]).live : 0;
}

static uint32_t forward_scratch(const ft_blob *blob, const ft_op *op, const ft_config *config, uint32_t batch)
{
    if (op->kind == FT_OP_LINEAR)
        return ft_linear_scratch(ft_blob_tensor(blob, op->in[0]).c, batch, false);
    if (op->kind != FT_OP_CONV2D)
        return 0;
    ft_conv c = ft_plan_conv(blob, op);
    return standardised(blob, op) + (config->lean ? ft_lean_forward_scratch(&c) : ft_conv_scratch(&c));
}

/* What backward.c lays out in scratch: the operator's own, then what it reads again, then that one's temporaries. */
static uint32_t backward_scratch(const ft_blob *blob, const ft_op *op, const ft_config *config, const ft_place *places,
                                 bool accumulate)
{
    uint32_t read = is_relu(op->kind) ? op->out : op->in[0], batch = config->micro_batch;
    ft_shape s = ft_blob_tensor(blob, read);
    uint32_t pixels = (uint32_t)s.h * s.w, again = ft_keep_temp(blob, places, read);
    uint8_t kept = places[ft_keep_root(blob, read)].kept;
    if (kept == FT_KEPT_WHOLE || kept == FT_KEPT_NOT || ft_keep_picks(config, op))
        pixels = again = 0;
    switch (op->kind) {
    case FT_OP_CONV2D: {
        ft_conv c = ft_plan_conv(blob, op);
        uint32_t quick = ft_conv_scratch(&c) + s.c * pixels + again;
        uint32_t lean = ft_lean_weight_scratch(&c) + ft_lean_channels(&c) * pixels + again;
        if (places[op->in[0]].gradient_at != FT_NOWHERE)
            lean = larger(lean, ft_lean_input_scratch(&c));
        bool scores = config->modes & FT_MODE_SCORE && ft_blob_param(blob, op->param[0]).storage != FT_STORAGE_DENSE;
        return standardised(blob, op) + (!config->lean ? quick : scores ? larger(quick, lean) : lean);
    }
    case FT_OP_LINEAR:
        return ft_linear_scratch(s.c, batch, accumulate) + (pixels ? batch * s.c : 0) + again;
    case FT_OP_BATCHNORM:
        return batch * pixels + again;
    case FT_OP_GROUPNORM:
    case FT_OP_RELU:
    case FT_OP_RELU6:
    case FT_OP_MAXPOOL:
        return pixels + again;
    default:
        return 0;
    }
}

static void scratch_pieces(heap *h, const ft_place *places, ft_step *steps)
{
    const ft_blob *blob = h->blob;
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        uint32_t forward = forward_scratch(blob, &op, h->config, h->batch), now = 2u * blob->ops - i;
        uint32_t backward =
            i < h->first ? 0 : backward_scratch(blob, &op, h->config, places, steps[i].accumulate[0]);
        steps[i].forward_scratch = forward ? add_piece(h, forward, i, i) : FT_NOWHERE;
        steps[i].backward_scratch = backward ? add_piece(h, backward, now, now) : FT_NOWHERE;
    }
}

static void settle(const ft_piece *pieces, uint32_t *id)
{
    if (*id != FT_NOWHERE)
        *id = pieces[*id].at;
}

static void place_forward(ft_layout *layout, const ft_blob *blob, const ft_config *config, ft_piece *pieces)
{
    heap h = {blob, config, pieces, 0, 1, 0};
    value_pieces(&h, layout->places, 0, false);
    layout->forward_floats = ft_place_pieces(pieces, h.count);
    for (uint32_t t = 0; t < blob->tensors; t++)
        settle(pieces, &layout->places[t].forward_at);
}

/* Activations, then gradients of values if they live layer by layer, then scratch: what each kind adds to the total. */
static void place_training(ft_layout *layout, const ft_blob *blob, const ft_config *config, ft_piece *pieces)
{
    heap h = {blob, config, pieces, 0, config->micro_batch, layout->first_op};
    uint32_t *until = (uint32_t *)(void *)(pieces + most_pieces(blob));
    ft_place *places = layout->places;
    ft_step *steps = layout->steps;
    ft_keep_choose(blob, config, layout->first_op, places, until);
    value_pieces(&h, places, until, true);
    kept_pieces(&h, places, steps, until);
    gradient_pieces(&h, places, steps);
    layout->activation_floats = ft_place_pieces(pieces, h.count);
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        uint32_t values = trained_values(layout, &op), now = 2u * blob->ops - i;
        steps[i].gradients_at = config->layerwise && values && i >= h.first ? add_piece(&h, values, now, now) : FT_NOWHERE;
    }
    layout->gradient_floats = ft_place_pieces(pieces, h.count);
    scratch_pieces(&h, places, steps);
    layout->train_floats = ft_place_pieces(pieces, h.count);
    for (uint32_t t = 0; t < blob->tensors; t++) {
        settle(pieces, &places[t].train_at);
        settle(pieces, &places[t].gradient_at);
        settle(pieces, &places[t].kept_at);
    }
    for (uint32_t i = 0; i < blob->ops; i++) {
        settle(pieces, &steps[i].picks_at);
        settle(pieces, &steps[i].gradients_at);
        settle(pieces, &steps[i].forward_scratch);
        settle(pieces, &steps[i].backward_scratch);
    }
}

/* Predicted instructions of a Cortex-M4F, in tenths, for one weight of a layer with a mask. They are the same numbers on every
 * target, so that a layer is held the same everywhere. */
typedef struct {
    uint32_t sparse, whole; /* held as live weights alone, held whole */
} cost;
static const cost linear_forward = {100, 38}, linear_step = {351, 216}; /* of one sample */
static const cost pixel_forward = {27, 15}, pixel_step = {77, 65};      /* of each output pixel, where the kernels take triples */

/* Shall a layer with a mask be held whole? Where kernels gain nothing from that, and where several samples meet a linear
 * layer side by side, each weight costs the same. Standardised and depthwise layers are left as they are. */
static bool holds_whole(const ft_layout *layout, const ft_blob *blob, const ft_config *config, const ft_param *p,
                        uint32_t param)
{
    ft_op op = ft_blob_op(blob, ft_blob_user(blob, param));
    bool trains = config->modes & (FT_MODE_TRAIN | FT_MODE_SCORE) && param >= layout->first_param;
    bool one = config->micro_batch == 1 || config->modes == FT_MODE_INFER;
    uint32_t row_len = p->elements / p->dim[0], copies = trains ? 3u - config->plain_sgd : 1;
    cost each = trains ? linear_step : linear_forward;
    if (op.kind == FT_OP_CONV2D) {
        each = trains ? pixel_step : pixel_forward;
        one = !config->lean && op.eps == 0.0f && op.groups == 1 && op.kw == 3 && op.sw == 1
              && ft_blob_tensor(blob, op.out).w % 14 == 0;
    }
    if (!one || config->hold == FT_HOLD_SPARSE || (uint64_t)each.whole * p->elements >= (uint64_t)each.sparse * p->live)
        return false;
    return !config->lean
           || 2 * copies * p->elements + row_len + p->elements / 16 + 1 <= 2 * copies * p->live + p->dim[0] + p->live;
}

static void place_params(ft_layout *layout, const ft_blob *blob, const ft_config *config)
{
    for (uint32_t i = 0; i < blob->params; i++) {
        ft_param p = ft_blob_param(blob, i);
        ft_slot *slot = &layout->slots[i];
        slot->start = layout->held_count;
        slot->live = slot->held = p.live;
        slot->index_at = layout->index_count;
        if (p.role == FT_ROLE_MEAN || p.role == FT_ROLE_VAR)
            slot->live = slot->held = 0; /* lives in the statistics vector */
        bool masked = p.role == FT_ROLE_WEIGHT && p.storage != FT_STORAGE_DENSE;
        slot->whole = !masked || holds_whole(layout, blob, config, &p, i);
        if (masked && slot->whole)
            slot->held = p.elements;
        layout->held_count += slot->held;
        if (p.role != FT_ROLE_WEIGHT)
            continue;
        uint32_t row_len = p.elements / p.dim[0];
        layout->index_count += slot->whole ? row_len : p.dim[0] + p.live;
        if (!masked)
            continue;
        layout->index_count += slot->whole ? p.elements / 16 + 1 : 0;
        uint32_t rows = ft_plan_tile_rows(config->score_tile_bytes, row_len, p.dim[0]);
        layout->tile_floats = larger(layout->tile_floats, rows * row_len);
        layout->row_positions = larger(layout->row_positions, row_len);
    }
    layout->index_count += layout->index_count % 2; /* keep what follows aligned to 4 */
}

static void place_steps(ft_layout *layout, const ft_blob *blob, const ft_config *config)
{
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        ft_step *step = &layout->steps[i];
        uint32_t channels = ft_blob_tensor(blob, op.in[0]).c;
        step->kept_at = layout->kept_count;
        step->statistic_at = layout->stat_count;
        if (op.kind == FT_OP_BATCHNORM) {
            layout->kept_count += 2 * channels;
            layout->stat_count += 2 * channels;
        } else if (op.kind == FT_OP_GROUPNORM) {
            layout->kept_count += 2u * op.groups * config->micro_batch;
        }
        layout->scratch_one = larger(layout->scratch_one, forward_scratch(blob, &op, config, 1));
        layout->scratch_batch = larger(layout->scratch_batch, forward_scratch(blob, &op, config, config->micro_batch));
    }
}

/* The worst mode's work by kind, so that the kinds add up to the peak. Counted in pairs of bytes: tensors take less than 2^30
 * bytes three times over, and so 32 bits hold every sum. */
static ft_status add_up(ft_layout *layout, const ft_blob *blob, const ft_config *config, uint32_t node_bytes)
{
    ft_memory *m = &layout->memory;
    /* what a placement takes without its last kinds may, by the luck of the order, be more than with them */
    uint32_t total = layout->train_floats, acts = smaller(layout->activation_floats, total), worst = 0;
    uint32_t by_layer = smaller(larger(layout->gradient_floats, acts), total) - acts;
    uint32_t trained = layout->held_count - ft_plan_first_value(layout);
    m->node = node_bytes + ft_plan_table_bytes(blob) + layout->label_bytes;
    m->weights = 4 * layout->held_count;
    m->indices = 2 * layout->index_count;
    m->statistics = 4 * (layout->stat_count + layout->kept_count);
    uint32_t lasting = (m->node + m->weights + m->indices + m->statistics) / 2;
    for (uint32_t mode = 0; mode < 4; mode++) {
        bool both = mode >= 2, trains = mode == 2; /* forward and backward; that and steps */
        uint32_t activations = both ? acts : layout->forward_floats * (mode ? config->micro_batch : 1u);
        uint32_t scratch = both ? total - acts - by_layer : mode ? layout->scratch_batch : layout->scratch_one;
        uint32_t gradients = (both ? by_layer : 0) + (trains && !config->layerwise ? trained : 0);
        uint32_t momentum = trains && !config->plain_sgd ? trained : 0, topk = 0;
        if (mode == 3 && layout->row_positions)
            topk = 2 * layout->tile_floats + layout->row_positions + 4 * config->topk_max;
        uint32_t work = 2 * (activations + scratch + gradients + momentum) + topk;
        if (!(config->modes >> mode & 1))
            continue;
        if (lasting + work > 0x3FFFFFFFu)
            return FT_ERR_UNSUPPORTED;
        m->mode_work[mode] = 2 * work;
        if (work <= worst)
            continue;
        worst = work;
        m->activations = 4 * activations;
        m->scratch = 4 * scratch;
        m->gradients = 4 * gradients;
        m->momentum = 4 * momentum;
        m->topk = 2 * topk;
    }
    m->peak = larger(2 * (lasting + worst), node_bytes + ft_plan_bytes(blob));
    return FT_OK;
}

uint8_t *ft_plan_tables(ft_layout *layout, const ft_blob *blob, void *tables)
{
    uint8_t *at = tables;
    layout->places = (ft_place *)(void *)at;
    at += blob->tensors * sizeof(ft_place);
    layout->slots = (ft_slot *)(void *)at;
    at += blob->params * sizeof(ft_slot);
    layout->steps = (ft_step *)(void *)at;
    return at + blob->ops * sizeof(ft_step);
}

ft_status ft_plan_layout(ft_layout *layout, const ft_blob *blob, const ft_config *config, void *tables,
                         uint32_t node_bytes)
{
    if (config->micro_batch < 1 || config->micro_batch > 256 || config->modes < 1 || config->modes > FT_MODE_ALL
        || config->norm > FT_NORM_FROZEN || config->topk_max > 1u << 24 || config->keep > FT_KEEP_INT8 || config->lean > 1
        || config->layerwise > 1 || config->hold > FT_HOLD_SPARSE || config->plain_sgd > 1 || config->loss > FT_LOSS_RECONSTRUCTION
        || (config->loss == FT_LOSS_RECONSTRUCTION
            && ft_shape_size(ft_blob_tensor(blob, blob->input)) != ft_shape_size(ft_blob_tensor(blob, blob->output))))
        return FT_ERR_ARG;
    uint64_t everything = 0;
    for (uint32_t t = 0; t < blob->tensors; t++)
        everything += 4ull * config->micro_batch * ft_shape_size(ft_blob_tensor(blob, t));
    if (everything > 0x3FFFFFFFu) /* then no offset overflows */
        return FT_ERR_UNSUPPORTED;
    memset(layout, 0, sizeof *layout);
    uint8_t *at = ft_plan_tables(layout, blob, tables);
    memset(tables, 0, ft_plan_table_bytes(blob));
    if (!cut(layout, blob, config->last_layers))
        return FT_ERR_UNSUPPORTED;
    layout->label_bytes = (config->micro_batch + 1u) / 2 * 4;
    place_params(layout, blob, config);
    place_steps(layout, blob, config);
    place_forward(layout, blob, config, (ft_piece *)(void *)at);
    if (config->modes & (FT_MODE_TRAIN | FT_MODE_SCORE))
        place_training(layout, blob, config, (ft_piece *)(void *)at);
    return add_up(layout, blob, config, node_bytes);
}
