/* Runs one script on each case named on the command line and prints the SHA-256 of everything it computes.
 *
 * The script is the one that test_bits.py runs through the library: 25 training steps, top-K of one layer, a mask change
 * that they decide, 25 steps more, then every other thing a node can do. A case file begins with ten u32s (see `header`),
 * then blob, bitmap of the layer's mask, samples, labels, each padded to 8 bytes. */
#include <string.h>

#include "fedtiny.h"
#include "port.h"
#include "sha256.h"

typedef struct {
    uint32_t norm, micro_batch, samples, dev, layer, topk, infers; /* infers: samples whose logits are taken */
    uint32_t blob_bytes, mask_bytes, knobs; /* the last: loss | last_layers << 8 | in banks << 24 */
} header;

typedef struct {
    const float *x;
    const uint16_t *labels;
    uint32_t size;
} source;

static uint8_t *memory, *end; /* what is left */

static void fail(const char *what, int status)
{
    port_print("failed: ");
    port_print(what);
    port_print(": ");
    port_print(ft_status_text((ft_status)status));
    port_print("\n");
    port_exit(1);
}

static void check(const char *what, ft_status status)
{
    if (status != FT_OK)
        fail(what, status);
}

static void *take(uint32_t bytes)
{
    uint8_t *at = memory;
    bytes = (bytes + 7) & ~7u;
    if (bytes > (uint32_t)(end - memory))
        fail("memory", FT_ERR_NOMEM);
    memory += bytes;
    return at;
}

static int read_sample(void *ctx, uint32_t index, float *x, uint16_t *label)
{
    const source *s = ctx;
    memcpy(x, s->x + (size_t)index * s->size, s->size * sizeof *x);
    *label = s->labels[index];
    return 0;
}

static void add_floats(sha256 *sum, const float *x, uint32_t count) { sha256_add(sum, x, count * sizeof *x); }

static void add_values(sha256 *sum, ft_node *node, float *values)
{
    check("values", ft_get_values(node, values, ft_value_count(node)));
    add_floats(sum, values, ft_value_count(node));
}

static void train(sha256 *sum, ft_node *node, uint32_t seed, float *values, float *moments)
{
    const ft_train_task task = {5, 0.01f, 0.9f, 1e-4f, seed};
    ft_score_sum tally;
    memset(moments, 0, ft_stat_count(node) * sizeof *moments); /* training with frozen statistics gives none */
    check("training", ft_train(node, &task, &tally, moments, ft_stat_count(node)));
    add_values(sum, node, values);
    add_floats(sum, moments, ft_stat_count(node));
    sha256_add(sum, &tally.loss_sum, sizeof tally.loss_sum);
}

/* The first live weight goes, the first of the top-K comes; values keep their places. */
static void change_mask(ft_node *node, const header *h, uint8_t *mask, uint32_t grown, float *values)
{
    uint32_t first = 0;
    while (!(mask[first / 8] >> first % 8 & 1))
        first++;
    mask[first / 8] ^= (uint8_t)(1u << first % 8);
    mask[grown / 8] |= (uint8_t)(1u << grown % 8);
    check("mask", ft_set_mask(node, h->layer, FT_MASK_BITMAP, mask, h->mask_bytes));
    check("values", ft_set_values(node, values, ft_value_count(node)));
}

/* In one arena of the planned bytes, or spread over three banks that the parts fill out of order. */
static ft_node *load(const header *h, const uint8_t *blob, const ft_config *config)
{
    ft_node *node;
    ft_memory plan;
    ft_spread spread;
    uint8_t *before = memory;
    uint32_t scratch = (uint32_t)ft_plan_scratch(blob, h->blob_bytes);
    void *tables = take(scratch);
    ft_bank banks[3] = {{0, 0x7FFFFFF8}};
    check("plan", ft_plan_banks(blob, h->blob_bytes, config, banks, 1, tables, scratch, &plan, &spread));
    if (!(h->knobs >> 24)) {
        memory = before;
        check("load", ft_load(take(plan.peak), plan.peak, blob, h->blob_bytes, config, &node, 0));
        return node;
    }
    banks[0].bytes = spread.bytes[FT_PART_WEIGHTS] + spread.bytes[FT_PART_MOMENTUM];
    banks[1].bytes = spread.bytes[FT_PART_WORK];
    banks[2].bytes = plan.peak;
    check("plan", ft_plan_banks(blob, h->blob_bytes, config, banks, 3, tables, scratch, &plan, &spread));
    memory = before;
    for (uint32_t b = 0; b < 3; b++)
        banks[b] = (ft_bank){take(plan.bank[b]), plan.bank[b]};
    check("load", ft_load_banks(banks, 3, blob, h->blob_bytes, config, &node, 0));
    return node;
}

static void run_script(sha256 *sum, const header *h, const uint8_t *blob, uint8_t *mask, const float *x,
                       const uint16_t *labels)
{
    const ft_config config = {.micro_batch = (uint16_t)h->micro_batch, .modes = FT_MODE_ALL,
                              .norm = (uint8_t)h->norm, .topk_max = h->topk, .loss = h->knobs & 0xFF,
                              .last_layers = (uint8_t)(h->knobs >> 8)};
    ft_node *node;
    const ft_topk_entry *entries = 0;
    const float *gradients = 0;
    uint32_t found = 0, seen = 0;
    ft_score_sum tally;
    double loss = 0.0;

    node = load(h, blob, &config);
    source from = {x, labels, ft_input_size(node)};
    const ft_data data = {&from, read_sample, h->samples, h->dev};
    check("data", ft_set_data(node, &data));
    float *values = take(ft_value_count(node) * 4), *moments = take(ft_stat_count(node) * 4);
    float *logits = take(ft_class_count(node) * 4);

    train(sum, node, 0, values, moments);
    check("score", ft_score(node, h->layer, h->topk, 2, 0, &entries, &found));
    for (uint32_t i = 0; i < found; i++) {
        sha256_add(sum, &entries[i].index, 4);
        sha256_add(sum, &entries[i].gradient, 4);
    }
    change_mask(node, h, mask, entries[0].index, values);
    train(sum, node, 1, values, moments);
    check("gradient", ft_gradient(node, 1, h->micro_batch, &gradients, &loss));
    add_floats(sum, gradients, ft_trained_count(node));
    sha256_add(sum, &loss, sizeof loss);
    check("batch norms", ft_measure_bn(node, FT_DATA_DEV, moments, ft_stat_count(node), &seen));
    add_floats(sum, moments, ft_stat_count(node));
    check("evaluation", ft_evaluate(node, FT_DATA_ALL, &tally));
    sha256_add(sum, &tally.loss_sum, sizeof tally.loss_sum);
    for (uint32_t i = 0; i < h->infers; i++) {
        check("inference", ft_infer(node, x + (size_t)i * from.size, logits));
        add_floats(sum, logits, ft_class_count(node));
    }
}

static const uint8_t *part(const uint8_t **at, uint32_t bytes)
{
    const uint8_t *begin = *at;
    *at += (bytes + 7) & ~7u;
    return begin;
}

int main(int argc, char **argv)
{
    uint32_t bytes;
    uint8_t *all = port_memory(&bytes);
    for (int i = 1; i < argc; i++) {
        header h;
        sha256 sum;
        char text[65];
        uint32_t length = port_read_file(argv[i], all, bytes);
        if (length == PORT_FAILED)
            fail(argv[i], FT_ERR_DATA);
        memory = all;
        end = all + bytes;
        const uint8_t *at = take(length);
        memcpy(&h, part(&at, sizeof h), sizeof h);
        const uint8_t *blob = part(&at, h.blob_bytes);
        uint8_t *mask = all + (part(&at, h.mask_bytes) - all);
        uint32_t sample_bytes = (length - (uint32_t)(at - all) - ((h.samples * 2 + 7) & ~7u));
        const float *x = (const float *)(const void *)part(&at, sample_bytes);
        sha256_start(&sum);
        run_script(&sum, &h, blob, mask, x, (const uint16_t *)(const void *)at);
        sha256_text(&sum, text);
        port_print(argv[i]);
        port_print(" ");
        port_print(text);
        port_print("\n");
    }
    return 0;
}
