#include "plan.h"

#include <string.h>

/* One piece of memory that one or several tensors occupy in turn, per sample. Times: operator i runs forward at i, the loss
 * at n, operator i backward at 2n - i. */
typedef struct {
    uint32_t size, begin, end, at;
} piece;

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

uint32_t ft_plan_user(const ft_blob *blob, uint32_t param)
{
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        for (int k = 0; k < 4; k++)
            if (op.param[k] == param)
                return i;
    }
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

uint32_t ft_plan_bytes(const ft_blob *blob)
{
    return ft_plan_table_bytes(blob) + (uint32_t)(2u * blob->tensors * sizeof(piece));
}

static uint32_t readers(const ft_blob *blob, uint32_t tensor)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        count += (uint32_t)(op.in[0] == tensor) + (op.in[1] == tensor);
    }
    return count;
}

static uint8_t writer_kind(const ft_blob *blob, uint32_t tensor)
{
    for (uint32_t i = 0; i < blob->ops; i++) {
        ft_op op = ft_blob_op(blob, i);
        if (op.out == tensor)
            return op.kind;
    }
    return 0; /* the model's input */
}

static bool is_relu(uint8_t kind) { return kind == FT_OP_RELU || kind == FT_OP_RELU6; }
static bool is_norm(uint8_t kind) { return kind == FT_OP_BATCHNORM || kind == FT_OP_GROUPNORM; }

/* Does backward read the operator's input again? */
static bool needs_input(uint8_t kind)
{
    return kind == FT_OP_CONV2D || kind == FT_OP_LINEAR || is_norm(kind) || kind == FT_OP_MAXPOOL;
}

/* May `op` write its output over this input? Flatten always shares. The others need to be the only reader; in training
 * nobody may need the old content: not the writer (a ReLU looks at its output again), not `op` itself. */
static bool may_overwrite(const ft_blob *blob, const ft_op *op, uint32_t in, bool training)
{
    if (op->kind == FT_OP_FLATTEN)
        return true;
    if (!is_relu(op->kind) && op->kind != FT_OP_ADD && !is_norm(op->kind))
        return false;
    uint8_t writer = writer_kind(blob, in);
    if (writer == 0 || writer == FT_OP_FLATTEN || readers(blob, in) != 1)
        return false;
    return !training || (!needs_input(op->kind) && !is_relu(writer));
}

/* Assigns each tensor's value to a piece; *ids is a field of ft_place that holds piece numbers until placement. */
static uint32_t value_pieces(const ft_blob *blob, piece *pieces, ft_place *places, bool training)
{
    uint32_t count = 0, n = blob->ops;
#define ID(t) (*(training ? &places[t].train_at : &places[t].forward_at))
    pieces[count] = (piece){ft_shape_size(ft_blob_tensor(blob, blob->input)), 0, 0, 0};
    ID(blob->input) = count++;
    for (uint32_t i = 0; i < n; i++) {
        ft_op op = ft_blob_op(blob, i);
        uint32_t shared = FT_NOWHERE;
        for (int k = 0; k < 2 && op.in[k] != FT_NONE; k++) {
            piece *in = &pieces[ID(op.in[k])];
            in->end = larger(in->end, training && needs_input(op.kind) ? 2 * n - i : i);
            if (shared == FT_NOWHERE && may_overwrite(blob, &op, op.in[k], training))
                shared = ID(op.in[k]);
        }
        if (shared == FT_NOWHERE) {
            pieces[count] = (piece){ft_shape_size(ft_blob_tensor(blob, op.out)), i, i, 0};
            shared = count++;
        }
        ID(op.out) = shared;
        if (training && is_relu(op.kind))
            pieces[shared].end = larger(pieces[shared].end, 2 * n - i);
    }
    piece *logits = &pieces[ID(blob->output)];
    logits->end = larger(logits->end, n);
#undef ID
    return count;
}

static uint32_t gradient_pieces(const ft_blob *blob, piece *pieces, uint32_t count, ft_place *places, ft_step *steps)
{
    uint32_t n = blob->ops;
    for (uint32_t t = 0; t < blob->tensors; t++)
        places[t].gradient_at = FT_NOWHERE;
    pieces[count] = (piece){ft_shape_size(ft_blob_tensor(blob, blob->output)), n, n, 0};
    places[blob->output].gradient_at = count++;
    for (uint32_t i = n; i-- > 0;) {
        ft_op op = ft_blob_op(blob, i);
        uint32_t now = 2 * n - i, from = places[op.out].gradient_at;
        bool passed_on = false;
        for (int k = 0; k < 2; k++) {
            steps[i].accumulate[k] = false;
            if (op.in[k] == FT_NONE || op.in[k] == blob->input)
                continue;
            uint32_t *to = &places[op.in[k]].gradient_at;
            if (*to != FT_NOWHERE) {
                steps[i].accumulate[k] = true;
            } else if (!passed_on && readers(blob, op.in[k]) == 1
                       && (is_relu(op.kind) || is_norm(op.kind) || op.kind == FT_OP_ADD || op.kind == FT_OP_FLATTEN)) {
                *to = from;
                passed_on = true;
            } else {
                pieces[count] = (piece){ft_shape_size(ft_blob_tensor(blob, op.in[k])), now, now, 0};
                *to = count++;
            }
            pieces[*to].end = larger(pieces[*to].end, now);
        }
        pieces[from].end = larger(pieces[from].end, now);
    }
    return count;
}

/* Largest first, each at the lowest offset that is free during its life; returns the floats that all take together. */
static uint32_t place_pieces(piece *pieces, uint32_t count)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < count; i++)
        pieces[i].at = FT_NOWHERE;
    for (uint32_t done = 0; done < count; done++) {
        piece *next = 0;
        for (uint32_t i = 0; i < count; i++)
            if (pieces[i].at == FT_NOWHERE && (!next || pieces[i].size > next->size))
                next = &pieces[i];
        uint32_t at = 0;
        for (uint32_t i = 0; i < count; i++) {
            const piece *p = &pieces[i];
            if (p->at != FT_NOWHERE && p->begin <= next->end && next->begin <= p->end && p->at < at + next->size
                && at < p->at + p->size) {
                at = p->at + p->size;
                i = (uint32_t)-1; /* look at all of them again from the new offset */
            }
        }
        next->at = at;
        total = larger(total, at + next->size);
    }
    return total;
}

static void place_activations(ft_layout *layout, const ft_blob *blob, piece *pieces)
{
    ft_place *places = layout->places;
    uint32_t count = value_pieces(blob, pieces, places, false);
    layout->forward_floats = place_pieces(pieces, count);
    for (uint32_t t = 0; t < blob->tensors; t++)
        places[t].forward_at = pieces[places[t].forward_at].at;
    count = value_pieces(blob, pieces, places, true);
    count = gradient_pieces(blob, pieces, count, places, layout->steps);
    layout->train_floats = place_pieces(pieces, count);
    for (uint32_t t = 0; t < blob->tensors; t++) {
        places[t].train_at = pieces[places[t].train_at].at;
        if (places[t].gradient_at != FT_NOWHERE)
            places[t].gradient_at = pieces[places[t].gradient_at].at;
    }
}

static void place_params(ft_layout *layout, const ft_blob *blob, const ft_config *config)
{
    for (uint32_t i = 0; i < blob->params; i++) {
        ft_param p = ft_blob_param(blob, i);
        ft_slot *slot = &layout->slots[i];
        slot->start = layout->value_count;
        slot->live = slot->capacity = p.live;
        slot->index_at = layout->index_count;
        if (p.role == FT_ROLE_MEAN || p.role == FT_ROLE_VAR)
            slot->live = slot->capacity = 0; /* lives in the statistics vector */
        layout->value_count += slot->live;
        if (p.role != FT_ROLE_WEIGHT)
            continue;
        uint32_t row_len = p.elements / p.dim[0];
        if (p.storage == FT_STORAGE_DENSE) {
            layout->index_count += row_len;
            continue;
        }
        layout->index_count += p.dim[0] + p.live;
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
        uint32_t channels = ft_blob_tensor(blob, op.in[0]).c, one = 0, batch = 0;
        step->kept_at = layout->kept_count;
        step->statistic_at = layout->stat_count;
        if (op.kind == FT_OP_BATCHNORM) {
            layout->kept_count += 2 * channels;
            layout->stat_count += 2 * channels;
        } else if (op.kind == FT_OP_GROUPNORM) {
            layout->kept_count += 2u * op.groups * config->micro_batch;
        } else if (op.kind == FT_OP_CONV2D) {
            ft_conv c = ft_plan_conv(blob, &op);
            one = batch = ft_conv_scratch(&c);
        } else if (op.kind == FT_OP_LINEAR) {
            one = ft_linear_scratch(channels, 1);
            batch = ft_linear_scratch(channels, config->micro_batch);
        }
        layout->scratch_one = larger(layout->scratch_one, one);
        layout->scratch_batch = larger(layout->scratch_batch, batch);
    }
}

/* The worst mode's work by kind, so that the kinds add up to the peak. Sums are in 64 bits: a hostile blob may be huge. */
static ft_status add_up(ft_layout *layout, const ft_blob *blob, const ft_config *config, uint32_t node_bytes)
{
    ft_memory *m = &layout->memory;
    uint64_t lasting, work[4], worst = 0, values = 4ull * layout->value_count, mb = config->micro_batch;
    uint64_t topk = layout->row_positions ? 4ull * layout->tile_floats + 2ull * layout->row_positions
                        + 2 * (layout->row_positions % 2) + 8ull * config->topk_max
                                          : 0;
    uint64_t activations[4] = {4ull * layout->forward_floats, 4ull * layout->forward_floats * mb,
                               4ull * layout->train_floats * mb, 4ull * layout->train_floats * mb};
    uint64_t scratch[4] = {4ull * layout->scratch_one, 4ull * layout->scratch_batch, 4ull * layout->scratch_batch,
                           4ull * layout->scratch_batch};
    int worst_mode = -1;
    m->node = node_bytes + ft_plan_table_bytes(blob) + layout->label_bytes;
    m->weights = (uint32_t)values;
    m->indices = 2 * layout->index_count;
    m->statistics = 4 * (layout->stat_count + layout->kept_count);
    lasting = (uint64_t)m->node + m->weights + m->indices + m->statistics;
    for (int mode = 0; mode < 4; mode++) {
        work[mode] = 0;
        if (config->modes >> mode & 1) {
            work[mode] = activations[mode] + scratch[mode] + (mode == 2 ? 2 * values : 0) + (mode == 3 ? topk : 0);
            if (work[mode] > worst || worst_mode < 0) {
                worst = work[mode];
                worst_mode = mode;
            }
        }
        if (lasting + work[mode] > 0x7FFFFFFFu)
            return FT_ERR_UNSUPPORTED;
        m->mode_work[mode] = (uint32_t)work[mode];
    }
    m->activations = (uint32_t)activations[worst_mode];
    m->scratch = (uint32_t)scratch[worst_mode];
    m->gradients = worst_mode == 2 ? (uint32_t)values : 0;
    m->momentum = m->gradients;
    m->topk = worst_mode == 3 ? (uint32_t)topk : 0;
    m->peak = (uint32_t)larger((uint32_t)(lasting + worst), node_bytes + ft_plan_bytes(blob));
    return FT_OK;
}

ft_status ft_plan_layout(ft_layout *layout, const ft_blob *blob, const ft_config *config, void *tables,
                         uint32_t node_bytes)
{
    if (config->micro_batch < 1 || config->micro_batch > 256 || config->modes < 1 || config->modes > FT_MODE_ALL
        || config->norm > FT_NORM_FROZEN || config->topk_max > 1u << 24)
        return FT_ERR_ARG;
    memset(layout, 0, sizeof *layout);
    uint8_t *at = tables;
    layout->places = (ft_place *)(void *)at;
    at += blob->tensors * sizeof(ft_place);
    layout->slots = (ft_slot *)(void *)at;
    at += blob->params * sizeof(ft_slot);
    layout->steps = (ft_step *)(void *)at;
    at += blob->ops * sizeof(ft_step);
    layout->label_bytes = (config->micro_batch + 1u) / 2 * 4;
    place_activations(layout, blob, (piece *)(void *)at);
    place_params(layout, blob, config);
    place_steps(layout, blob, config);
    return add_up(layout, blob, config, node_bytes);
}
