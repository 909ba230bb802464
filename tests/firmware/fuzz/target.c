/* One input: how a node is configured, a script of calls, a blob. The blob's CRC and ABI hash are put right unless the input
 * says otherwise, so that the checks behind them are reached. Every buffer is malloc'ed at its exact size: a sanitizer then
 * sees one byte too many. What a status promises (fedtiny.h) is checked too, by abort().
 *
 *   0      flags: bit 0 leaves the checksums as they are; with any of bits 1 to 3 the input ends at the loader; the others
 *          say what banks there are, none: one arena
 *   1..12  micro-batch (2), modes, norm, topk_max (2), tile bytes (2), keep, other knobs, loss and hold, layers that train
 *   13     bytes of script, that many bytes, then the blob
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedtiny.h"
#include "target.h"

enum { CONFIG = 13, RUNNABLE_BYTES = 1 << 16, LOADABLE_BYTES = 1 << 22 };

#define PROMISE(what) ((what) ? (void)0 : broken(#what, __LINE__))

static void broken(const char *what, int line)
{
    fprintf(stderr, "target.c:%d: the core broke a promise: %s\n", line, what);
    abort();
}

/* The rest of the script; past its end come zeros. */
typedef struct {
    const uint8_t *at, *end;
} script;

static uint32_t take(script *s) { return s->at < s->end ? *s->at++ : 0; }
static uint32_t take16(script *s)
{
    uint32_t low = take(s);
    return low | take(s) << 8;
}

static bool finite(const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!(x[i] - x[i] == 0.0f))
            return false;
    return true;
}

/* Numbers as odd as the script wants them: usually small, sometimes anything. */
static float odd(uint32_t byte)
{
    static const uint32_t special[8] = {0x7FC00000u, 0x7F800000u, 0xFF800000u, 0x7F7FFFFFu,
                                        0xFF7FFFFFu, 1u,          0x80000000u, 0x3F800000u};
    float x = ((float)(byte & 0x7F) - 64.0f) / 32.0f;
    if (byte >= 248)
        memcpy(&x, &special[byte - 248], sizeof x);
    return x;
}

/* A source of samples that is as bad as asked: bit 0 a NaN, bit 1 a label out of range, bit 2 a failing read, bit 3 large. */
typedef struct {
    uint32_t size, classes, badness, at;
} source;

static int read_sample(void *ctx, uint32_t index, float *x, uint16_t *label)
{
    const source *s = ctx;
    for (uint32_t i = 0; i < s->size; i++) {
        uint32_t mixed = (index * 2654435761u + i * 40503u) >> 7;
        x[i] = ((float)(mixed & 0xFF) - 128.0f) * (s->badness & 8 ? 1e30f : 0.01f);
    }
    bool here = index == s->at;
    if (here && s->badness & 1)
        x[s->size - 1] = odd(248 + (s->at & 1));
    *label = (uint16_t)(here && s->badness & 2 ? s->classes : index % s->classes);
    return here && s->badness & 4 ? 1 : 0;
}

typedef struct {
    ft_node *node;
    ft_config config;
    source source;
    uint32_t count, dev_count;
    bool wants_values; /* what the header says the node's state must be */
    bool masked, thresholded;
} harness;

/* n floats at their exact size, filled from the script; NULL is a possible buffer of 0. */
static float *floats(script *s, uint32_t n)
{
    uint32_t how = take(s);
    float *x = malloc(n * sizeof *x);
    for (uint32_t i = 0; i < n; i++)
        x[i] = ((float)((i * 37 + how) % 101) - 50.0f) * 0.02f;
    if (n && how & 1)
        x[take16(s) % n] = odd(take(s));
    return x;
}

static float *values_of(const harness *h)
{
    uint32_t n = ft_value_count(h->node);
    float *x = malloc(n * sizeof *x);
    PROMISE(ft_get_values(h->node, x, n) == (h->wants_values ? FT_ERR_STATE : FT_OK));
    PROMISE(h->wants_values || finite(x, n));
    return x;
}

static void same_values(const harness *h, const float *before)
{
    float *now = values_of(h);
    PROMISE(h->wants_values || memcmp(before, now, ft_value_count(h->node) * sizeof *now) == 0);
    free(now);
}

static bool data_is_bad(const harness *h, uint32_t seen)
{
    uint32_t bad = h->config.loss == FT_LOSS_RECONSTRUCTION ? 5 : 7; /* then labels are not read */
    return h->source.badness & bad && h->source.at < seen;
}

static void call_set_values(harness *h, script *s)
{
    uint32_t n = ft_value_count(h->node), given = take(s) < 240 ? n : n + 1;
    float *x = floats(s, given), *before = values_of(h);
    ft_status status = ft_set_values(h->node, x, given);
    PROMISE(status == (given != n ? FT_ERR_ARG : finite(x, n) ? FT_OK : FT_ERR_NONFINITE));
    if (status == FT_OK)
        h->wants_values = h->thresholded = false;
    else
        same_values(h, before);
    free(x);
    free(before);
}

static void call_stats(harness *h, script *s)
{
    uint32_t n = ft_stat_count(h->node), given = take(s) < 240 ? n : n + 1;
    float *x = floats(s, given), *before = malloc(n * sizeof *x), *now = malloc(n * sizeof *x);
    PROMISE(ft_get_stats(h->node, before, n) == FT_OK);
    ft_status status = ft_set_stats(h->node, x, given);
    PROMISE(status == (given != n ? FT_ERR_ARG : finite(x, n) ? FT_OK : FT_ERR_NONFINITE));
    PROMISE(ft_get_stats(h->node, now, n) == FT_OK && memcmp(now, status == FT_OK ? x : before, n * sizeof *x) == 0);
    free(x);
    free(before);
    free(now);
}

/* A layer's mask at its exact size; bitmap: what it must be, or NULL. */
static void mask_of(const harness *h, uint32_t layer, const uint8_t *bitmap)
{
    uint32_t bytes = 0, again = 0;
    if (ft_get_mask(h->node, layer, 0, 0, &bytes) == FT_ERR_ARG)
        return; /* no such layer, or a dense one */
    uint8_t *read = malloc(bytes);
    PROMISE(ft_get_mask(h->node, layer, read, bytes - 1, &again) == FT_ERR_NOMEM && again == bytes);
    PROMISE(ft_get_mask(h->node, layer, read, bytes, &again) == FT_OK && again == bytes);
    PROMISE(!bitmap || memcmp(read, bitmap, bytes) == 0);
    free(read);
}

static void call_set_mask(harness *h, script *s)
{
    uint32_t layer = take(s) % (ft_layer_count(h->node) + 1), choice = take(s) % 8, length = take(s);
    uint32_t encoding = choice < FT_MASK_RICE ? choice : FT_MASK_RICE | (choice - FT_MASK_RICE) << 8;
    uint8_t *mask = malloc(length);
    for (uint32_t i = 0; i < length; i++)
        mask[i] = (uint8_t)take(s);
    uint32_t n = ft_stat_count(h->node);
    float *before = values_of(h), *stats = malloc(2 * n * sizeof *stats);
    PROMISE(ft_get_stats(h->node, stats, n) == FT_OK);
    ft_status status = ft_set_mask(h->node, layer, encoding, mask, length);
    PROMISE(status == FT_OK || status == FT_ERR_ARG || status == FT_ERR_NOMEM);
    PROMISE(ft_get_stats(h->node, stats + n, n) == FT_OK && memcmp(stats, stats + n, n * sizeof *stats) == 0);
    free(stats);
    mask_of(h, layer, status == FT_OK && encoding == FT_MASK_BITMAP ? mask : 0);
    if (status == FT_OK)
        h->wants_values = h->masked = true;
    else
        same_values(h, before);
    free(before);
    free(mask);
}

static void call_set_thresholds(harness *h, script *s)
{
    uint32_t n = ft_layer_count(h->node);
    float *x = floats(s, n);
    ft_status status = ft_set_thresholds(h->node, x, n);
    PROMISE(status == (h->masked ? FT_ERR_STATE : finite(x, n) ? FT_OK : FT_ERR_NONFINITE));
    if (status == FT_OK) {
        h->thresholded = true;
        h->wants_values = false;
    }
    free(x);
}

/* Whether a call that needs `mode` and `seen` samples must be refused for the node's state. */
static bool refused(const harness *h, uint32_t mode, uint32_t seen)
{
    return h->wants_values || !(h->config.modes & mode) || seen == 0;
}

static void check_status(const harness *h, ft_status status, uint32_t mode, uint32_t seen)
{
    PROMISE((status == FT_ERR_STATE) == refused(h, mode, seen));
    PROMISE(status == FT_OK || status == FT_ERR_STATE || status == FT_ERR_NONFINITE || status == FT_ERR_DATA);
    PROMISE(status != FT_ERR_DATA || h->source.badness & 6);
    PROMISE(status != FT_OK || !data_is_bad(h, seen));
}

static void call_measure(harness *h, script *s)
{
    uint32_t which = take(s) % 2, n = ft_stat_count(h->node), samples;
    float *moments = malloc(n * sizeof *moments);
    uint32_t seen = which == FT_DATA_DEV ? h->dev_count : h->count;
    ft_status status = ft_measure_bn(h->node, which, moments, n, &samples);
    check_status(h, status, FT_MODE_MEASURE, seen);
    PROMISE(status != FT_OK || (finite(moments, n) && samples == seen));
    free(moments);
}

static void call_evaluate(harness *h, script *s)
{
    ft_score_sum sum;
    uint32_t which = take(s) % 2, seen = which == FT_DATA_DEV ? h->dev_count : h->count;
    ft_status status = ft_evaluate(h->node, which, &sum);
    check_status(h, status, FT_MODE_INFER, seen);
    PROMISE(status != FT_OK || (sum.samples == seen && sum.correct <= seen && sum.loss_sum - sum.loss_sum == 0.0));
}

static void call_train(harness *h, script *s)
{
    uint32_t n = take(s) % 3 ? ft_stat_count(h->node) : 0;
    ft_train_task task = {take(s) % 3, odd(take(s)), odd(take(s)), odd(take(s)), take(s)};
    float *moments = malloc(n * sizeof *moments), *before = values_of(h);
    ft_score_sum sum;
    bool good = task.epochs && task.lr >= 0 && task.momentum >= 0 && task.weight_decay >= 0 && finite(&task.lr, 1)
                && finite(&task.momentum, 1) && finite(&task.weight_decay, 1);
    good = good && !(h->config.plain_sgd && task.momentum > 0);
    ft_status status = ft_train(h->node, &task, &sum, n ? moments : 0, n);
    PROMISE(good || status == FT_ERR_ARG);
    if (good)
        check_status(h, status, FT_MODE_TRAIN, h->thresholded ? 0 : h->count);
    if (!good || status == FT_ERR_STATE || data_is_bad(h, h->count))
        same_values(h, before);
    else if (status == FT_ERR_NONFINITE) /* it diverged: the weights are finite or refused */
        h->wants_values = ft_get_values(h->node, before, ft_value_count(h->node)) == FT_ERR_STATE;
    free(values_of(h));
    free(moments);
    free(before);
}

static void call_score(harness *h, script *s)
{
    uint32_t layer = take(s) % (ft_layer_count(h->node) + 1), k = take16(s) % 300, batches = take(s) % 4, found;
    const ft_topk_entry *entries;
    float *before = values_of(h);
    ft_status status = ft_score(h->node, layer, k, batches, take(s), &entries, &found);
    if (status == FT_OK) {
        PROMISE(found <= k && batches && k <= h->config.topk_max);
        for (uint32_t i = 0; i < found; i++)
            PROMISE(finite(&entries[i].gradient, 1) && (i == 0 || entries[i - 1].index < entries[i].index));
    } else if (status != FT_ERR_ARG && status != FT_ERR_NOMEM) {
        PROMISE((status == FT_ERR_STATE) == refused(h, FT_MODE_SCORE, h->count));
    }
    same_values(h, before);
    free(before);
}

static void call_infer(harness *h, script *s)
{
    float *x = floats(s, ft_input_size(h->node)), *logits = malloc(ft_class_count(h->node) * sizeof *logits);
    ft_status status = ft_infer(h->node, x, logits);
    PROMISE((status == FT_ERR_STATE) == refused(h, FT_MODE_INFER, 1));
    PROMISE(status != FT_OK || (finite(logits, ft_class_count(h->node)) && finite(x, ft_input_size(h->node))));
    free(x);
    free(logits);
}

static void call_gradient(harness *h, script *s)
{
    uint32_t first = take(s) % 9, count = take(s) % 9;
    const float *gradients;
    double loss;
    ft_status status = ft_gradient(h->node, first, count, &gradients, &loss);
    bool fits = count && count <= h->config.micro_batch && count <= h->count && first <= h->count - count;
    PROMISE((status == FT_ERR_ARG) == !fits);
    PROMISE(status != FT_OK || !h->config.layerwise);
    if (status == FT_OK)
        for (uint32_t i = 0; i < ft_trained_count(h->node); i++)
            (void)*(const volatile float *)&gradients[i];
}

static void call_set_data(harness *h, script *s)
{
    uint32_t count = take(s) % 9, dev_count = take(s) % 10;
    h->source.badness = take(s);
    if (h->source.badness >= 16)
        h->source.badness = 0;
    h->source.at = take(s) % 8;
    ft_data data = {&h->source, read_sample, count, dev_count};
    PROMISE(ft_set_data(h->node, &data) == (dev_count > count ? FT_ERR_ARG : FT_OK));
    if (dev_count <= count) {
        h->count = count;
        h->dev_count = dev_count;
    }
}

static void call_bare(harness *h)
{
    PROMISE(ft_set_data(h->node, 0) == FT_ERR_ARG && ft_infer(h->node, 0, 0) == FT_ERR_ARG);
    PROMISE(ft_set_values(h->node, 0, 0) == FT_ERR_ARG && ft_train(h->node, 0, 0, 0, 0) == FT_ERR_ARG);
    PROMISE(ft_memory_of(h->node)->peak > 0 && ft_input_size(h->node) > 0 && ft_class_count(h->node) > 0);
    (void)ft_abi_hash(h->node);
}

static void run(harness *h, script *s)
{
    static void (*const calls[])(harness *, script *) = {
        call_set_data, call_set_values, call_stats,   call_set_mask, call_set_thresholds, call_measure,
        call_evaluate, call_train,      call_score,   call_infer,    call_gradient,
    };
    call_bare(h);
    while (s->at < s->end)
        calls[take(s) % (sizeof calls / sizeof *calls)](h, s);
}

/* The short way, for most inputs: one load into an arena that is used again. */
static void load_alone(const uint8_t *blob, uint32_t size, const ft_config *config)
{
    static uint64_t arena[RUNNABLE_BYTES / sizeof(uint64_t)];
    ft_node *node;
    ft_status status = ft_load(arena, sizeof arena, blob, size, config, &node, 0);
    PROMISE((status == FT_OK) == (node != 0));
    PROMISE(status != FT_OK || ft_memory_of(node)->peak <= sizeof arena);
}

static void run_node(ft_node *node, const ft_config *config, script *s)
{
    if (ft_memory_of(node)->peak > RUNNABLE_BYTES)
        return;
    harness h = {.node = node, .config = *config};
    h.source.size = ft_input_size(node);
    h.source.classes = ft_class_count(node);
    run(&h, s);
}

/* Sixteenths of the peak, and all of it for the last bank where `shape` is odd: then there is always a place. */
static void load_in_banks(const uint8_t *blob, uint32_t size, const ft_config *config, uint32_t shape, uint32_t peak, script *s)
{
    uint32_t count = 2 + shape % 3, scratch_bytes = (uint32_t)ft_plan_scratch(blob, size);
    void *scratch = malloc(scratch_bytes);
    ft_bank banks[FT_BANKS_MAX];
    ft_memory memory;
    ft_spread spread;
    for (uint32_t b = 0; b < count; b++)
        banks[b] = (ft_bank){0, shape & 1 && b + 1 == count ? peak : peak / 16 * (shape * (5 * b + 3) % 16)};
    ft_status status = ft_plan_banks(blob, size, config, banks, count, scratch, scratch_bytes, &memory, &spread);
    free(scratch);
    PROMISE(status == FT_OK || (status == FT_ERR_NOMEM && !(shape & 1)));
    PROMISE((status == FT_OK) == (spread.missing == FT_PARTS));
    for (uint32_t b = 0; b < count; b++) {
        PROMISE(status != FT_OK || memory.bank[b] <= banks[b].bytes);
        PROMISE(status == FT_OK || banks[b].bytes < peak);
        if (status == FT_OK)
            banks[b].bytes = memory.bank[b];
        banks[b].at = malloc(banks[b].bytes + 1); /* never 0 bytes */
        memset(banks[b].at, 0xA5, banks[b].bytes);
    }
    ft_node *node;
    PROMISE(ft_load_banks(banks, count, blob, size, config, &node, &spread) == status);
    PROMISE((status == FT_OK) == (node != 0));
    if (node) {
        PROMISE(memcmp(ft_memory_of(node), &memory, sizeof memory) == 0);
        run_node(node, config, s);
    }
    for (uint32_t b = 0; b < count; b++)
        free(banks[b].at);
}

static void load_and_run(const uint8_t *blob, uint32_t size, const ft_config *config, uint32_t shape, script s)
{
    size_t scratch_bytes = ft_plan_scratch(blob, size);
    uint8_t *scratch = malloc(scratch_bytes);
    ft_memory memory;
    ft_status status = ft_plan(blob, size, config, scratch, scratch_bytes, &memory);
    PROMISE(scratch_bytes || status != FT_OK);
    if (scratch_bytes)
        PROMISE(ft_plan(blob, size, config, scratch, scratch_bytes - 1, &memory) == FT_ERR_ARG);
    free(scratch);
    ft_node *node;
    if (status != FT_OK) { /* load must refuse it too, with little memory */
        uint64_t small[64];
        PROMISE(ft_load(small, sizeof small, blob, size, config, &node, 0) != FT_OK && !node);
        return;
    }
    if (memory.peak > LOADABLE_BYTES)
        return;
    if (shape) {
        load_in_banks(blob, size, config, shape, memory.peak, &s);
        return;
    }
    uint8_t *arena = malloc(memory.peak);
    memset(arena, 0xA5, memory.peak);
    uint32_t needed;
    PROMISE(ft_load(arena, memory.peak - 1, blob, size, config, &node, &needed) == FT_ERR_NOMEM && !node);
    PROMISE(needed == memory.peak);
    PROMISE(ft_load(arena, memory.peak, blob, size, config, &node, 0) == FT_OK);
    PROMISE(memcmp(ft_memory_of(node), &memory, sizeof memory) == 0);
    run_node(node, config, &s);
    free(arena);
}

static uint16_t u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < CONFIG + 1)
        return 0;
    ft_config config = {.micro_batch = u16(data + 1), .modes = data[3], .norm = data[4], .topk_max = u16(data + 5),
                        .score_tile_bytes = u16(data + 7), .keep = data[9], .lean = data[10] & 1,
                        .layerwise = data[10] >> 1 & 1, .plain_sgd = data[10] >> 2, .loss = data[11] & 15, .hold = data[11] >> 4,
                        .last_layers = data[12]};
    script s = {data + CONFIG + 1, data + CONFIG + 1 + data[CONFIG]};
    if (s.end > data + size)
        s.end = data + size;
    uint32_t blob_bytes = (uint32_t)(data + size - s.end);
    uint8_t *blob = malloc(blob_bytes);
    memcpy(blob, s.end, blob_bytes);
    if (!(data[0] & 1))
        fuzz_repair(blob, blob_bytes);
    if (data[0] & 0x0E)
        load_alone(blob, blob_bytes, &config);
    else
        load_and_run(blob, blob_bytes, &config, data[0] >> 4, s);
    free(blob);
    return 0;
}
