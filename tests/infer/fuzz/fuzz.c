/* Blobs of the inference engine, mutated: an error code or a run that touches nothing outside, never a crash.
 *
 *   fuzz COUNT SEED FILE...     prints how many inputs ran and how many of them the loader took; sanitizers end it
 *
 * Each file is a program. A mutated one has its length and CRC put right, so that the checks behind them are reached; blob and
 * arena have their exact sizes, so that one byte too many is found. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedtiny_infer.h"

enum { MOST = 1 << 15, ARENA_MOST = 1 << 20, STEPS_MOST = 64 };

typedef struct {
    uint8_t *bytes;
    uint32_t size;
} input;

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state * 0x2545F4914F6CDD1Dull) >> 33) % below;
}

static uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store(input *in, uint32_t at, uint32_t value, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes && at + i < in->size; i++)
        in->bytes[at + i] = (uint8_t)(value >> 8 * i);
}

static uint32_t crc(const uint8_t *p, uint32_t n)
{
    uint32_t sum = 0xFFFFFFFFu;
    while (n--) {
        sum ^= *p++;
        for (int k = 0; k < 8; k++)
            sum = sum & 1 ? 0xEDB88320u ^ sum >> 1 : sum >> 1;
    }
    return ~sum;
}

static input load(const char *path)
{
    FILE *file = fopen(path, "rb");
    input in = {malloc(MOST), 0};
    if (!file) {
        fprintf(stderr, "fuzz: cannot read %s\n", path);
        exit(2);
    }
    in.size = (uint32_t)fread(in.bytes, 1, MOST, file);
    fclose(file);
    return in;
}

/* Header and operators in three of four cases, as the rest is mostly weights. */
static uint32_t place(const input *in)
{
    const uint32_t head = 48 + 88 * load32(in->bytes + 20);
    return draw(draw(4) && head < in->size ? head : in->size);
}

static void mutate(input *in)
{
    static const uint32_t odd[] = {0,   1,   2,   3,     4,       8,       127,     128,        255,        256,
                                   300, 511, 512, 32767, 0xFFFF, 1 << 16, 1 << 24, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    const uint32_t at = place(in);
    switch (draw(6)) {
    case 0:
        in->bytes[at] ^= (uint8_t)(1u << draw(8));
        break;
    case 1:
        in->bytes[at] = (uint8_t)draw(256);
        break;
    case 2:
        store(in, at / 4 * 4, odd[draw(sizeof odd / sizeof *odd)], 4);
        break;
    case 3:
        store(in, at / 2 * 2, odd[draw(sizeof odd / sizeof *odd)], 2);
        break;
    case 4: /* a neighbour of what is there */
        store(in, at / 4 * 4, load32(in->bytes + (at / 4 * 4 + 4 <= in->size ? at / 4 * 4 : 0)) + draw(17) - 8, 4);
        break;
    default:
        if (draw(16) == 0)
            in->size = at + 1 > 16 ? at + 1 : 16;
    }
}

static int try(const input *in)
{
    fti_program program;
    uint8_t *blob = malloc(in->size);
    memcpy(blob, in->bytes, in->size);
    const int taken = fti_load(&program, blob, in->size) == FTI_OK;
    if (taken && program.arena_bytes <= ARENA_MOST) {
        uint8_t *arena = malloc(program.arena_bytes + !program.arena_bytes);
        for (uint32_t i = 0; i < program.arena_bytes; i++)
            arena[i] = (uint8_t)draw(256);
        for (uint32_t i = 0; i < program.ops && i < STEPS_MOST; i++)
            fti_run_op(&program, arena, i);
        free(arena);
    }
    free(blob);
    return taken;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: fuzz COUNT SEED FILE...\n");
        return 2;
    }
    const uint32_t count = (uint32_t)strtoul(argv[1], 0, 10), key = (uint32_t)strtoul(argv[2], 0, 10);
    const int seeds = argc - 3;
    input *files = malloc((size_t)seeds * sizeof *files), in = {malloc(MOST), 0};
    uint32_t taken = 0;
    for (int i = 0; i < seeds; i++)
        files[i] = load(argv[3 + i]);
    for (uint32_t i = 0; i < count; i++) {
        state = (key + 1) * 0x9E3779B97F4A7C15ull ^ (i + 1) * 0xD1B54A32D192ED03ull;
        draw(2);
        const input *seed = &files[draw((uint32_t)seeds)];
        in.size = seed->size;
        memcpy(in.bytes, seed->bytes, seed->size);
        for (uint32_t n = draw(5); n--;) /* none at all: the seed itself must run too */
            mutate(&in);
        if (draw(32)) {
            store(&in, 8, in.size, 4);
            store(&in, 12, crc(in.bytes + 16, in.size - 16), 4);
        }
        taken += (uint32_t)try(&in);
    }
    printf("%u inputs, %u taken\n", count, taken);
    for (int i = 0; i < seeds; i++)
        free(files[i].bytes);
    free(files);
    free(in.bytes);
    return 0;
}
