/* fedtiny-node: the C core as a program. Runs one model on samples from a file, as a board would from its flash.
 *
 *   fedtiny-node plan  MODEL.ftm [--bank BYTES]...    memory by kind, for inference and training; what lies in which bank
 *   fedtiny-node eval  MODEL.ftm SAMPLES              loss and accuracy
 *   fedtiny-node train MODEL.ftm SAMPLES EPOCHS LR    local training, then loss and accuracy as seen
 *   fedtiny-node infer MODEL.ftm < x.f32 > logits.f32 one sample after the other
 *   fedtiny-node serve RECORD ...                     a node of the wire, see serve.c
 *
 * SAMPLES: little-endian records of one u16 label and the input's f32s. Results are one line of JSON. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedtiny.h"
#include "samples.h"
#include "serve.h"

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "fedtiny-node: %s: %s\n", what, why);
    return 2;
}

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = NULL;
    long end;
    if (!file)
        return NULL;
    if (fseek(file, 0, SEEK_END) == 0 && (end = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0
        && (bytes = malloc((size_t)end + 1)) != NULL) {
        *size = fread(bytes, 1, (size_t)end, file);
        if (*size != (size_t)end) {
            free(bytes);
            bytes = NULL;
        }
    }
    fclose(file);
    return bytes;
}

static ft_status plan(const uint8_t *blob, size_t size, const ft_config *config, ft_memory *memory)
{
    size_t bytes = ft_plan_scratch(blob, size);
    void *scratch = malloc(bytes ? bytes : 1);
    ft_status status = scratch ? ft_plan(blob, size, config, scratch, bytes, memory) : FT_ERR_NOMEM;
    free(scratch);
    return status;
}

/* The banks of a command line; count 0: one arena of any size. */
typedef struct {
    ft_bank banks[FT_BANKS_MAX];
    uint32_t count;
} bank_list;

static bool read_banks(int argc, char **argv, bank_list *list)
{
    for (int i = 3; i < argc; i += 2) {
        char *end = NULL;
        unsigned long bytes = i + 1 < argc ? strtoul(argv[i + 1], &end, 0) : 0;
        if (strcmp(argv[i], "--bank") || !end || *end || bytes == 0 || bytes > 0xFFFFFFFFu || list->count == FT_BANKS_MAX)
            return false;
        list->banks[list->count++].bytes = (uint32_t)bytes;
    }
    return true;
}

static ft_status print_plan(const char *name, const uint8_t *blob, size_t size, const ft_config *config, const bank_list *list)
{
    static const char *const parts[FT_PARTS] = {"node", "weights", "indices",   "statistics",
                                                "work", "topk",    "gradients", "momentum"};
    ft_memory memory;
    ft_memory *m = &memory;
    ft_spread spread;
    ft_status status = plan(blob, size, config, m);
    if (status != FT_OK)
        return status;
    printf("\"%s\": {\"peak\": %u, \"node\": %u, \"weights\": %u, \"indices\": %u, \"statistics\": %u, \"gradients\": %u, "
           "\"momentum\": %u, \"activations\": %u, \"scratch\": %u, \"topk\": %u",
           name, m->peak, m->node, m->weights, m->indices, m->statistics, m->gradients, m->momentum, m->activations,
           m->scratch, m->topk);
    if (list->count) {
        size_t bytes = ft_plan_scratch(blob, size);
        void *scratch = malloc(bytes);
        status = scratch ? ft_plan_banks(blob, size, config, list->banks, list->count, scratch, bytes, m, &spread)
                         : FT_ERR_NOMEM;
        free(scratch);
        if (status == FT_OK) {
            printf(", \"missing\": null, \"banks\": [");
            for (uint32_t b = 0; b < list->count; b++)
                printf("%s%u", b ? ", " : "", m->bank[b]);
            printf("], \"parts\": {");
            for (uint32_t p = 0; p < FT_PARTS; p++)
                printf("%s\"%s\": {\"bank\": %u, \"bytes\": %u}", p ? ", " : "", parts[p], spread.bank[p], spread.bytes[p]);
            printf("}");
        } else if (status == FT_ERR_NOMEM && scratch) {
            printf(", \"missing\": {\"part\": \"%s\", \"bytes\": %u}", parts[spread.missing], spread.bytes[spread.missing]);
            status = FT_OK;
        }
    }
    printf("}");
    return status;
}

/* Splits the records in place into floats and labels. */
static uint32_t split_records(uint8_t *bytes, size_t size, uint32_t input, float **x, uint16_t **labels)
{
    size_t record = 2 + 4 * (size_t)input, count = size / record;
    if (size % record || count == 0 || count > 0xFFFFFFFFu)
        return 0;
    *x = malloc(count * input * sizeof **x);
    *labels = malloc(count * sizeof **labels);
    if (!*x || !*labels)
        return 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(*labels + i, bytes + i * record, 2);
        memcpy(*x + i * input, bytes + i * record + 2, 4 * (size_t)input);
    }
    return (uint32_t)count;
}

static int infer(ft_node *node)
{
    uint32_t input = ft_input_size(node), classes = ft_class_count(node);
    float *x = malloc((input + classes) * sizeof *x);
    ft_status status = FT_OK;
    if (!x)
        return fail("infer", "out of memory");
    while (status == FT_OK && fread(x, sizeof *x, input, stdin) == input) {
        status = ft_infer(node, x, x + input);
        if (status == FT_OK)
            fwrite(x + input, sizeof *x, classes, stdout);
    }
    free(x);
    return status == FT_OK ? 0 : fail("infer", ft_status_text(status));
}

static int work(int argc, char **argv, ft_node *node)
{
    float *x = NULL;
    uint16_t *labels = NULL;
    size_t size;
    uint8_t *bytes = read_file(argv[3], &size);
    if (!bytes)
        return fail(argv[3], "cannot be read");
    uint32_t count = split_records(bytes, size, ft_input_size(node), &x, &labels);
    free(bytes);
    if (!count)
        return fail(argv[3], "its size is not a whole number of records for this model");
    ft_samples samples = {x, labels, ft_input_size(node)};
    ft_score_sum sum;
    ft_status status = ft_samples_use(node, &samples, count, 0);
    if (status == FT_OK && argc == 6) {
        ft_train_task task = {(uint32_t)strtoul(argv[4], NULL, 10), strtof(argv[5], NULL), 0.9f, 0.0f, 0};
        status = ft_train(node, &task, &sum, NULL, 0);
    } else if (status == FT_OK) {
        status = ft_evaluate(node, FT_DATA_ALL, &sum);
    }
    free(x);
    free(labels);
    if (status != FT_OK)
        return fail(argv[1], ft_status_text(status));
    printf("{\"samples\": %u, \"loss\": %.6f, \"accuracy\": %.4f, \"arena_bytes\": %u}\n", sum.samples,
           sum.loss_sum / sum.samples, (double)sum.correct / sum.samples, ft_memory_of(node)->peak);
    return 0;
}

int main(int argc, char **argv)
{
    static const char usage[] = "usage: fedtiny-node plan MODEL [--bank BYTES]... | eval MODEL SAMPLES | train MODEL SAMPLES EPOCHS LR | "
                                "infer MODEL < floats > floats\n";
    const char *command = argc > 2 ? argv[1] : "";
    if (!strcmp(command, "serve"))
        return serve(argc - 1, argv + 1);
    bank_list list = {0};
    bool plans = !strcmp(command, "plan") && read_banks(argc, argv, &list), infers = !strcmp(command, "infer") && argc == 3;
    bool trains = !strcmp(command, "train") && argc == 6, evaluates = !strcmp(command, "eval") && argc == 4;
    if (!plans && !infers && !trains && !evaluates) {
        fputs(usage, stderr);
        fprintf(stderr, "       %s", serve_usage);
        return 2;
    }
    size_t size = 0;
    uint8_t *blob = read_file(argv[2], &size);
    if (!blob)
        return fail(argv[2], "cannot be read");
    ft_config inference = {.micro_batch = 1, .modes = FT_MODE_INFER};
    ft_config training = {.micro_batch = 8, .modes = FT_MODE_TRAIN};
    ft_memory memory;
    ft_status status = plan(blob, size, &inference, &memory);
    if (status == FT_OK && (plans || trains))
        status = plan(blob, size, &training, &memory);
    if (status != FT_OK)
        return fail(argv[2], ft_status_text(status));
    if (plans) {
        printf("{");
        status = print_plan("infer", blob, size, &inference, &list);
        printf(", ");
        if (status == FT_OK)
            status = print_plan("train", blob, size, &training, &list);
        printf("}\n");
        free(blob);
        return status == FT_OK ? 0 : fail(argv[2], ft_status_text(status));
    }
    void *arena = malloc(memory.peak);
    ft_node *node = NULL;
    if (!arena)
        return fail("arena", "out of memory");
    status = ft_load(arena, memory.peak, blob, size, trains ? &training : &inference, &node, NULL);
    int code = status != FT_OK ? fail(argv[2], ft_status_text(status)) : infers ? infer(node) : work(argc, argv, node);
    free(arena);
    free(blob);
    return code;
}
