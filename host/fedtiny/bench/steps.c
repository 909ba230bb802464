/* Counts the instructions of inference and of training steps: steps REPEATS FILE...
 *
 * A case file begins with a header (see `header`), then blob and one sample, each padded to 8 bytes. For each case
 * the program does the work REPEATS times and prints "case INSTRUCTIONS"; the host takes the difference of two numbers of
 * repeats, so what surrounds the work does not count. A step's learning rate is 0: each repeat is the same work. Then
 * "stack BYTES", the deepest that loading and the work went, and "arena BYTES", what the node took. */
#include <string.h>

#include "fedtiny.h"
#include "port.h"

typedef struct {
    uint32_t blob_bytes, input_size, label, micro_batch, modes, norm;
    uint8_t keep, lean, layerwise, plain_sgd, hold, padding[3];
} header;

enum { PAINTED = 6 * 1024, COLOUR = 0xC5 };

static int read_sample(void *ctx, uint32_t index, float *x, uint16_t *label)
{
    const header *h = ctx;
    (void)index;
    memcpy(x, (const uint8_t *)(h + 1) + (h->blob_bytes + 7u) / 8 * 8, h->input_size * sizeof *x);
    *label = (uint16_t)h->label;
    return 0;
}

static void check(const char *what, ft_status status)
{
    if (status == FT_OK)
        return;
    port_print(what);
    port_print(": ");
    port_print(ft_status_text(status));
    port_print("\n");
    port_exit(1);
}

static void work(ft_node *node, const header *h, uint32_t repeats, float *logits)
{
    const ft_train_task task = {repeats, 0.0f, h->plain_sgd ? 0.0f : 0.9f, 1e-4f, 0};
    ft_score_sum sum;
    if (h->modes & FT_MODE_TRAIN) {
        check("training", ft_train(node, &task, &sum, 0, 0));
        return;
    }
    const float *x = (const float *)(const void *)((const uint8_t *)(h + 1) + (h->blob_bytes + 7u) / 8 * 8);
    for (uint32_t i = 0; i < repeats; i++)
        check("inference", ft_infer(node, x, logits));
}

/* A case in memory: its file, room for the logits, the node's arena. */
typedef struct {
    header *h;
    ft_data data;
    float *logits;
    uint8_t *arena;
    uint32_t arena_bytes;
} setting;

static ft_node *load(const setting *s)
{
    const header *h = s->h;
    ft_config config = {.micro_batch = (uint16_t)h->micro_batch, .modes = (uint8_t)h->modes, .norm = (uint8_t)h->norm,
                        .keep = h->keep, .lean = h->lean, .layerwise = h->layerwise, .plain_sgd = h->plain_sgd,
                        .hold = h->hold};
    ft_node *node;
    check("load", ft_load(s->arena, s->arena_bytes, (const uint8_t *)(h + 1), h->blob_bytes, &config, &node, 0));
    check("data", ft_set_data(node, &s->data));
    return node;
}

/* The deepest stack byte that loading and the work touch, from this frame on. */
static __attribute__((noinline)) uint32_t stack_of(const setting *s)
{
    volatile uint8_t *here = (volatile uint8_t *)__builtin_frame_address(0);
    for (uint32_t i = 128; i < PAINTED; i++)
        here[-(int32_t)i] = COLOUR;
    work(load(s), s->h, 1, s->logits);
    uint32_t deepest = PAINTED - 1;
    while (deepest > 128 && here[-(int32_t)deepest] == COLOUR)
        deepest--;
    return deepest;
}

static void print_line(const char *word, uint64_t number)
{
    port_print(word);
    port_print_number(number);
    port_print("\n");
}

static void measure(const char *file, uint32_t repeats)
{
    uint32_t capacity, length;
    uint8_t *memory = port_memory(&capacity);
    length = port_read_file(file, memory, capacity);
    if (length == PORT_FAILED || length < sizeof(header))
        check(file, FT_ERR_DATA);
    header *h = (header *)(void *)memory;
    uint32_t used = (length + 7u) / 8 * 8;
    setting s = {h, {h, read_sample, h->micro_batch, 0}, (float *)(void *)(memory + used), memory + used + 4096,
                 capacity - used - 4096};
    ft_node *node = load(&s);
    uint64_t before = port_count();
    work(node, h, repeats, s.logits);
    print_line("case ", port_count() - before);
    print_line("arena ", ft_memory_of(node)->peak);
    print_line("stack ", stack_of(&s));
}

int main(int argc, char **argv)
{
    uint32_t repeats = argc > 1 ? (uint32_t)(argv[1][0] - '0') : 1;
    for (int i = 2; i < argc; i++)
        measure(argv[i], repeats);
    return 0;
}
