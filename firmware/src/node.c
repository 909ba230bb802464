/* The public calls: arguments and state are checked here, the work is done below. */
#include "bank.h"
#include "bn.h"
#include "num.h"
#include "topk.h"
#include "train.h"

struct ft_node {
    ft_net net;
    ft_data data;
    bool wants_values; /* a mask changed or training overflowed: values must come before any work */
    bool masked;       /* a mask changed since load: the blob's values no longer fit */
    bool thresholded;  /* working weights are a candidate's */
};

enum { ALIGN = 8 };

static uint32_t node_bytes(void) { return (uint32_t)((sizeof(struct ft_node) + ALIGN - 1) / ALIGN * ALIGN); }

size_t ft_plan_scratch(const uint8_t *bytes, size_t size)
{
    ft_blob blob;
    return ft_blob_open(&blob, bytes, size) == FT_OK ? ft_plan_bytes(&blob) : 0;
}

ft_status ft_plan(const uint8_t *bytes, size_t size, const ft_config *config, void *scratch, size_t scratch_bytes,
                  ft_memory *out)
{
    const ft_bank boundless = {0, 0xFFFFFFFFu};
    return ft_plan_banks(bytes, size, config, &boundless, 1, scratch, scratch_bytes, out, 0);
}

ft_status ft_plan_banks(const uint8_t *bytes, size_t size, const ft_config *config, const ft_bank *banks, uint32_t count,
                        void *scratch, size_t scratch_bytes, ft_memory *out, ft_spread *spread)
{
    ft_blob blob;
    ft_layout layout;
    ft_spread own;
    if (!config || !banks || count < 1 || count > FT_BANKS_MAX || !out || !scratch
        || (uintptr_t)scratch % sizeof(uint32_t))
        return FT_ERR_ARG;
    ft_status status = ft_blob_open(&blob, bytes, size);
    if (status == FT_OK && scratch_bytes < ft_plan_bytes(&blob))
        status = FT_ERR_ARG;
    if (status == FT_OK)
        status = ft_plan_layout(&layout, &blob, config, scratch, node_bytes());
    if (status != FT_OK)
        return status;
    status = ft_bank_spread(spread ? spread : &own, &layout, config, banks, count, node_bytes() + ft_plan_bytes(&blob));
    *out = layout.memory;
    return status;
}

/* The blob's values; of layers with a mask only those of at least their threshold. thresholds NULL: all. */
static void copy_values(ft_net *net, const float *thresholds)
{
    for (uint32_t i = 0; i < net->blob.params; i++) {
        ft_param p = ft_blob_param(&net->blob, i);
        const ft_slot *slot = &net->layout.slots[i];
        const uint16_t *bitmap = ft_net_bitmap(net, i);
        float threshold = p.role == FT_ROLE_WEIGHT && thresholds ? *thresholds++ : 0.0f;
        for (uint32_t at = 0, k = 0; at < slot->held; at++) {
            float v = ft_net_lives(bitmap, at) ? ft_blob_value(&net->blob, &p, k++) : 0.0f;
            if (p.storage != FT_STORAGE_DENSE && ft_num_abs(v) < threshold)
                v = 0.0f;
            net->weights[slot->start + at] = v;
        }
    }
}

/* Where each parameter lies, from what is held of it. */
static void lay_out(ft_net *net)
{
    uint32_t held = 0;
    net->value_count = 0;
    for (uint32_t i = 0; i < net->blob.params; i++) {
        net->layout.slots[i].start = held;
        held += net->layout.slots[i].held;
        net->value_count += net->layout.slots[i].live;
    }
}

static void copy_model(ft_net *net)
{
    for (uint32_t i = 0; i < net->blob.params; i++) {
        ft_param p = ft_blob_param(&net->blob, i);
        ft_mask mask = ft_blob_mask(&net->blob, &p);
        if (p.role == FT_ROLE_WEIGHT)
            ft_net_build_indices(net, i, p.storage == FT_STORAGE_DENSE ? 0 : &mask);
    }
    lay_out(net);
    copy_values(net, 0);
    for (uint32_t i = 0; i < net->blob.ops; i++) {
        ft_op op = ft_blob_op(&net->blob, i);
        if (op.kind != FT_OP_BATCHNORM)
            continue;
        float *stats = net->stats + net->layout.steps[i].statistic_at;
        for (int k = 2; k < 4; k++) {
            ft_param p = ft_blob_param(&net->blob, op.param[k]);
            for (uint32_t c = 0; c < p.live; c++)
                *stats++ = ft_blob_value(&net->blob, &p, c);
        }
    }
}

/* *needed: as ft_load says. */
static ft_status load(const ft_bank *banks, uint32_t count, const uint8_t *bytes, size_t size, const ft_config *config,
                      ft_node **out, ft_spread *spread, uint32_t *needed)
{
    ft_blob blob;
    bool sound = banks && count >= 1 && count <= FT_BANKS_MAX && config && out;
    for (uint32_t b = 0; sound && b < count; b++)
        sound = banks[b].at && (uintptr_t)banks[b].at % ALIGN == 0;
    if (!sound)
        return FT_ERR_ARG;
    *out = 0;
    ft_status status = ft_blob_open(&blob, bytes, size);
    if (status != FT_OK)
        return status;
    *needed = node_bytes() + ft_plan_bytes(&blob);
    uint32_t first;
    status = ft_bank_to_plan_in(&first, spread, banks, count, *needed);
    if (status != FT_OK)
        return status;
    struct ft_node *node = banks[first].at;
    memset(node, 0, sizeof *node);
    node->net.blob = blob;
    node->net.config = *config;
    status = ft_plan_layout(&node->net.layout, &blob, config, (uint8_t *)node + node_bytes(), node_bytes());
    if (status == FT_OK)
        status = ft_bank_spread(spread, &node->net.layout, config, banks, count, *needed);
    if (status == FT_OK || status == FT_ERR_NOMEM)
        *needed = node->net.layout.memory.peak;
    if (status != FT_OK)
        return status;
    uint8_t *at[FT_PARTS];
    for (uint32_t part = 0; part < FT_PARTS; part++) {
        at[part] = (uint8_t *)banks[spread->bank[part]].at + spread->at[part];
        if (part == FT_PART_NODE && at[part] != (uint8_t *)node) { /* out of the way of what is cleared next */
            memcpy(at[part], node, spread->bytes[part]);
            node = (struct ft_node *)(void *)at[part];
            ft_plan_tables(&node->net.layout, &blob, at[part] + node_bytes());
        } else if (part != FT_PART_NODE && part < FT_PART_WORK) {
            memset(at[part], 0, spread->bytes[part]);
        }
    }
    ft_net *net = &node->net;
    net->weights = (float *)(void *)at[FT_PART_WEIGHTS];
    net->indices = (uint16_t *)(void *)at[FT_PART_INDICES];
    net->stats = (float *)(void *)at[FT_PART_STATISTICS];
    net->kept = net->stats + net->layout.stat_count;
    net->labels = (uint16_t *)(void *)(net->kept + net->layout.kept_count);
    net->work = (float *)(void *)at[FT_PART_WORK];
    net->topk = at[FT_PART_TOPK];
    net->gradients = (float *)(void *)at[FT_PART_GRADIENTS];
    net->momentum = (float *)(void *)at[FT_PART_MOMENTUM];
    copy_model(net);
    *out = node;
    return FT_OK;
}

ft_status ft_load(void *arena, size_t arena_bytes, const uint8_t *bytes, size_t size, const ft_config *config,
                  ft_node **out, uint32_t *needed)
{
    const ft_bank bank = {arena, arena_bytes < 0xFFFFFFFFu ? (uint32_t)arena_bytes : 0xFFFFFFFFu};
    ft_spread spread;
    uint32_t asked;
    return load(&bank, 1, bytes, size, config, out, &spread, needed ? needed : &asked);
}

ft_status ft_load_banks(const ft_bank *banks, uint32_t count, const uint8_t *bytes, size_t size, const ft_config *config,
                        ft_node **out, ft_spread *spread)
{
    ft_spread own;
    uint32_t asked;
    return load(banks, count, bytes, size, config, out, spread ? spread : &own, &asked);
}

ft_status ft_set_data(ft_node *node, const ft_data *data)
{
    if (!node || !data || !data->read || data->dev_count > data->count || data->count > 0x7FFFFFFFu)
        return FT_ERR_ARG;
    node->data = *data;
    return FT_OK;
}

uint32_t ft_input_size(const ft_node *node)
{
    return ft_shape_size(ft_blob_tensor(&node->net.blob, node->net.blob.input));
}

uint32_t ft_class_count(const ft_node *node)
{
    return ft_shape_size(ft_blob_tensor(&node->net.blob, node->net.blob.output));
}

uint32_t ft_layer_count(const ft_node *node)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < node->net.blob.params; i++)
        count += ft_blob_param(&node->net.blob, i).role == FT_ROLE_WEIGHT;
    return count;
}

uint32_t ft_value_count(const ft_node *node) { return node->net.value_count; }
uint32_t ft_trained_count(const ft_node *node)
{
    uint32_t count = node->net.value_count;
    for (uint32_t i = 0; i < node->net.layout.first_param; i++)
        count -= node->net.layout.slots[i].live;
    return count;
}

uint32_t ft_stat_count(const ft_node *node) { return node->net.layout.stat_count; }
uint32_t ft_abi_hash(const ft_node *node) { return node->net.blob.abi; }
const ft_memory *ft_memory_of(const ft_node *node) { return &node->net.layout.memory; }

ft_status ft_set_values(ft_node *node, const float *values, uint32_t count)
{
    if (!node || !values || count != node->net.value_count)
        return FT_ERR_ARG;
    if (!ft_num_all_finite(values, count))
        return FT_ERR_NONFINITE;
    float *w = node->net.weights;
    for (uint32_t i = 0; i < node->net.blob.params; i++) {
        const uint16_t *bitmap = ft_net_bitmap(&node->net, i);
        for (uint32_t at = 0; at < node->net.layout.slots[i].held; at++)
            *w++ = ft_net_lives(bitmap, at) ? *values++ : 0.0f;
    }
    node->wants_values = node->thresholded = false;
    return FT_OK;
}

ft_status ft_get_values(const ft_node *node, float *values, uint32_t count)
{
    if (!node || !values || count != node->net.value_count)
        return FT_ERR_ARG;
    if (node->wants_values)
        return FT_ERR_STATE;
    ft_net_gather(&node->net, values, node->net.weights, 0);
    return FT_OK;
}

ft_status ft_set_stats(ft_node *node, const float *stats, uint32_t count)
{
    if (!node || count != node->net.layout.stat_count || (count && !stats))
        return FT_ERR_ARG;
    if (!ft_num_all_finite(stats, count))
        return FT_ERR_NONFINITE;
    if (count)
        memcpy(node->net.stats, stats, count * sizeof *stats);
    return FT_OK;
}

ft_status ft_get_stats(const ft_node *node, float *stats, uint32_t count)
{
    if (!node || count != node->net.layout.stat_count || (count && !stats))
        return FT_ERR_ARG;
    if (count)
        memcpy(stats, node->net.stats, count * sizeof *stats);
    return FT_OK;
}

ft_status ft_set_mask(ft_node *node, uint32_t layer, uint32_t encoding, const uint8_t *bytes, uint32_t length)
{
    if (!node || (length && !bytes))
        return FT_ERR_ARG;
    ft_net *net = &node->net;
    uint32_t live, param = ft_plan_layer_param(&net->blob, layer);
    if (param == FT_NONE)
        return FT_ERR_ARG;
    ft_param p = ft_blob_param(&net->blob, param);
    if (p.storage == FT_STORAGE_DENSE)
        return FT_ERR_ARG;
    ft_mask mask = ft_mask_open(encoding, bytes, length, p.elements);
    if (!ft_mask_check(mask, &live))
        return FT_ERR_ARG;
    if (live > p.live)
        return FT_ERR_NOMEM;
    ft_net_build_indices(net, param, &mask);
    lay_out(net);
    node->wants_values = node->masked = true;
    return FT_OK;
}

ft_status ft_get_mask(const ft_node *node, uint32_t layer, uint8_t *bitmap, uint32_t capacity, uint32_t *bytes)
{
    uint32_t param = node ? ft_plan_layer_param(&node->net.blob, layer) : FT_NONE;
    if (param == FT_NONE || !bytes)
        return FT_ERR_ARG;
    ft_param p = ft_blob_param(&node->net.blob, param);
    if (p.storage == FT_STORAGE_DENSE)
        return FT_ERR_ARG;
    *bytes = p.elements / 8 + (p.elements % 8 != 0);
    if (capacity < *bytes || !bitmap)
        return FT_ERR_NOMEM;
    ft_net_mask(&node->net, param, bitmap);
    return FT_OK;
}

ft_status ft_set_thresholds(ft_node *node, const float *thresholds, uint32_t count)
{
    if (!node || !thresholds || count != ft_layer_count(node))
        return FT_ERR_ARG;
    ft_net *net = &node->net;
    if (node->masked)
        return FT_ERR_STATE;
    if (!ft_num_all_finite(thresholds, count))
        return FT_ERR_NONFINITE;
    copy_values(net, thresholds);
    node->thresholded = true;
    node->wants_values = false;
    return FT_OK;
}

/* May the node do this now? */
static ft_status ready(const ft_node *node, uint32_t mode, uint32_t samples)
{
    if (!(node->net.config.modes & mode) || node->wants_values)
        return FT_ERR_STATE;
    return samples ? FT_OK : FT_ERR_STATE;
}

static uint32_t subset(const ft_node *node, uint32_t which)
{
    return which == FT_DATA_DEV ? node->data.dev_count : node->data.count;
}

ft_status ft_measure_bn(ft_node *node, uint32_t which, float *moments, uint32_t count, uint32_t *samples)
{
    if (!node || which > FT_DATA_ALL || !samples || count != node->net.layout.stat_count || (count && !moments))
        return FT_ERR_ARG;
    ft_status status = ready(node, FT_MODE_MEASURE, subset(node, which));
    if (status != FT_OK)
        return status;
    *samples = subset(node, which);
    return ft_bn_measure(&node->net, &node->data, *samples, moments);
}

ft_status ft_evaluate(ft_node *node, uint32_t which, ft_score_sum *out)
{
    if (!node || which > FT_DATA_ALL || !out)
        return FT_ERR_ARG;
    ft_status status = ready(node, FT_MODE_INFER, subset(node, which));
    return status != FT_OK ? status : ft_bn_evaluate(&node->net, &node->data, subset(node, which), out);
}

static bool is_rate(float x) { return ft_num_finite(x) && x >= 0.0f; }

ft_status ft_train(ft_node *node, const ft_train_task *task, ft_score_sum *result, float *moments, uint32_t moment_count)
{
    if (!node || !task || !result || !is_rate(task->lr) || !is_rate(task->momentum) || !is_rate(task->weight_decay)
        || task->epochs == 0 || (node->net.config.plain_sgd && task->momentum > 0.0f) || (moments && moment_count != node->net.layout.stat_count))
        return FT_ERR_ARG;
    ft_status status = ready(node, FT_MODE_TRAIN, node->data.count);
    if (status != FT_OK || node->thresholded)
        return status != FT_OK ? status : FT_ERR_STATE;
    status = ft_train_run(&node->net, &node->data, task, result, moments);
    if (status == FT_ERR_NONFINITE && !ft_num_all_finite(node->net.weights, ft_net_held(&node->net)))
        node->wants_values = true;
    return status;
}

ft_status ft_score(ft_node *node, uint32_t layer, uint32_t k, uint32_t batches, uint32_t seed,
                   const ft_topk_entry **entries, uint32_t *found)
{
    if (!node || !entries || !found || batches == 0)
        return FT_ERR_ARG;
    uint32_t param = ft_plan_layer_param(&node->net.blob, layer);
    if (param == FT_NONE || param < node->net.layout.first_param
        || ft_blob_param(&node->net.blob, param).storage == FT_STORAGE_DENSE)
        return FT_ERR_ARG;
    if (k > node->net.config.topk_max)
        return FT_ERR_NOMEM;
    ft_status status = ready(node, FT_MODE_SCORE, node->data.count);
    if (status != FT_OK)
        return status;
    return ft_topk_score(&node->net, &node->data, param, k, batches, seed, entries, found);
}

ft_status ft_infer(ft_node *node, const float *x, float *logits)
{
    ft_moments none = {0, 0};
    if (!node || !x || !logits)
        return FT_ERR_ARG;
    ft_status status = ready(node, FT_MODE_INFER, 1);
    if (status != FT_OK)
        return status;
    if (!ft_num_all_finite(x, ft_input_size(node)))
        return FT_ERR_NONFINITE;
    memcpy(ft_net_input(&node->net, FT_PASS_INFER), x, ft_input_size(node) * sizeof *x);
    ft_net_forward(&node->net, FT_PASS_INFER, 1, none);
    memcpy(logits, ft_net_output(&node->net, FT_PASS_INFER), ft_class_count(node) * sizeof *logits);
    return ft_num_all_finite(logits, ft_class_count(node)) ? FT_OK : FT_ERR_NONFINITE;
}

ft_status ft_gradient(ft_node *node, uint32_t first, uint32_t count, const float **gradients, double *loss_sum)
{
    if (!node || !gradients || !loss_sum || count == 0 || count > node->net.config.micro_batch
        || count > node->data.count || first > node->data.count - count)
        return FT_ERR_ARG;
    ft_status status = ready(node, FT_MODE_TRAIN, node->data.count);
    if (status == FT_OK && node->net.config.layerwise)
        status = FT_ERR_STATE;
    return status != FT_OK ? status
                           : ft_train_gradient(&node->net, &node->data, first, count, gradients, loss_sum);
}

const char *ft_status_text(ft_status status)
{
    static const char *const text[] = {
        "ok",
        "the blob is damaged",
        "the blob has another version",
        "the model needs something this core lacks",
        "the memory is too small",
        "the node is not ready for this call",
        "an argument is out of range",
        "NaN or infinity in data, weights or loss",
        "the data source failed or gave a label out of range",
    };
    return (unsigned)status < sizeof text / sizeof *text ? text[status] : "unknown status";
}
