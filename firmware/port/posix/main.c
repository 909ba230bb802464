/* fedtiny-node: the C core as a program. Runs one model on samples from a file, as a board would from its flash.
 *
 *   fedtiny-node plan  MODEL.ftm                      memory by kind, for inference and training
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

static void print_memory(const char *name, const ft_memory *m, const char *end)
{
    printf("\"%s\": {\"peak\": %u, \"node\": %u, \"weights\": %u, \"indices\": %u, \"statistics\": %u, \"gradients\": %u, "
           "\"momentum\": %u, \"activations\": %u, \"scratch\": %u, \"topk\": %u}%s",
           name, m->peak, m->node, m->weights, m->indices, m->statistics, m->gradients, m->momentum, m->activations,
           m->scratch, m->topk, end);
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
    static const char usage[] = "usage: fedtiny-node plan MODEL | eval MODEL SAMPLES | train MODEL SAMPLES EPOCHS LR | "
                                "infer MODEL < floats > floats\n";
    const char *command = argc > 2 ? argv[1] : "";
    if (!strcmp(command, "serve"))
        return serve(argc - 1, argv + 1);
    bool plans = !strcmp(command, "plan") && argc == 3, infers = !strcmp(command, "infer") && argc == 3;
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
    ft_memory memory, training_memory;
    ft_status status = plan(blob, size, trains ? &training : &inference, &memory);
    if (status == FT_OK && plans)
        status = plan(blob, size, &training, &training_memory);
    if (status != FT_OK)
        return fail(argv[2], ft_status_text(status));
    if (plans) {
        printf("{");
        print_memory("infer", &memory, ", ");
        print_memory("train", &training_memory, "}\n");
        free(blob);
        return 0;
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
