/* A fuzzer in one page, for machines without libFuzzer: mutates the seeds given, the same inputs for the same seed number.
 *
 *   driver COUNT SEED FILE...     prints how many inputs ran; a broken promise or a sanitizer's finding ends it
 *   driver replay SEED N FILE...  runs the N-th input of that sequence alone and writes it to replay.bin
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "target.h"

enum { MOST = 1 << 14 };

typedef struct {
    uint8_t *bytes;
    size_t size;
} input;

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state * 0x2545F4914F6CDD1Dull) >> 33) % below;
}

static input load(const char *path)
{
    FILE *file = fopen(path, "rb");
    input in = {malloc(MOST), 0};
    if (!file) {
        fprintf(stderr, "driver: cannot read %s\n", path);
        exit(2);
    }
    in.size = fread(in.bytes, 1, MOST, file);
    fclose(file);
    return in;
}

static uint32_t interesting(void)
{
    static const uint32_t list[] = {0,      1,      2,          3,          4,          7,          8,       16,     31,
                                    32,     63,     64,         127,        128,        254,        255,     256,    257,
                                    0x3FFF, 0x7FFF, 0xFFFE,     0xFFFF,     0x10000,    0xFFFFFF,   1 << 24, 1 << 30,
                                    0x7F800000, 0x7FC00000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    return list[draw(sizeof list / sizeof *list)];
}

/* Where a change hits: the header and tables in half of the cases, as the rest is mostly values. */
static size_t place(const input *in)
{
    size_t head = 14u + in->bytes[13] + 64u + 512u;
    return draw((uint32_t)(draw(2) && head < in->size ? head : in->size));
}

static void store(input *in, size_t at, uint32_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes && at + i < in->size; i++)
        in->bytes[at + i] = (uint8_t)(value >> 8 * i);
}

static void mutate(input *in, const input *other)
{
    size_t at = place(in), from, n;
    switch (draw(9)) {
    case 0:
        in->bytes[at] ^= (uint8_t)(1u << draw(8));
        break;
    case 1:
        in->bytes[at] = (uint8_t)draw(256);
        break;
    case 2:
        store(in, at, interesting(), 1u << draw(3));
        break;
    case 3: /* a neighbour of what is there */
        in->bytes[at] = (uint8_t)(in->bytes[at] + draw(9) - 4);
        break;
    case 4: /* a piece of itself elsewhere, in table steps */
        n = 4u << draw(4);
        from = place(in) / 4 * 4;
        at = at / 4 * 4;
        if (from + n <= in->size && at + n <= in->size)
            memmove(in->bytes + at, in->bytes + from, n);
        break;
    case 5: /* a piece of another seed */
        n = 1u + draw(64);
        from = draw((uint32_t)other->size);
        if (from + n <= other->size && at + n <= in->size)
            memcpy(in->bytes + at, other->bytes + from, n);
        break;
    case 6:
        if (draw(8) == 0)
            in->size = at + 1;
        break;
    case 7:
        n = 4u * (1u + draw(8));
        if (draw(4) == 0 && in->size + n <= MOST) {
            memset(in->bytes + in->size, (int)draw(256), n);
            in->size += n;
        }
        break;
    default: /* another script */
        for (n = 1 + draw(8); n--;) {
            from = 14u + draw(in->bytes[13] + 1u);
            if (from < in->size)
                in->bytes[from] = (uint8_t)draw(256);
        }
    }
}

/* An eighth of the inputs runs its script, the others end at the loader; the banks are any: see target.c. */
static uint8_t flags(uint8_t seeds) { return (uint8_t)((seeds & 1) | draw(128) << 1); }

static void make(input *in, const input *seeds, int count)
{
    const input *seed = &seeds[draw((uint32_t)count)];
    in->size = seed->size;
    memcpy(in->bytes, seed->bytes, seed->size);
    if (draw(64) == 0) { /* bytes of any kind behind the header's first four */
        for (size_t i = 14u + in->bytes[13] + 4u; i < in->size; i++)
            in->bytes[i] = (uint8_t)draw(256);
        return;
    }
    for (uint32_t n = draw(5); n--;) /* none at all: the seed with its script must run too */
        mutate(in, &seeds[draw((uint32_t)count)]);
}

int main(int argc, char **argv)
{
    int replay = argc > 1 && strcmp(argv[1], "replay") == 0;
    if (argc < 4 || (replay && argc < 5)) {
        fprintf(stderr, "usage: driver COUNT SEED FILE... | driver replay SEED N FILE...\n");
        return 2;
    }
    unsigned long long number = strtoull(argv[replay ? 3 : 1], 0, 10);
    uint64_t key = strtoull(argv[2], 0, 10);
    char **files = argv + (replay ? 4 : 3);
    int count = argc - (replay ? 4 : 3);
    input *seeds = malloc((size_t)count * sizeof *seeds), in = {malloc(MOST), 0};
    for (int i = 0; i < count; i++)
        seeds[i] = load(files[i]);
    const char *last = getenv("FUZZ_LAST"); /* a file that always holds the number of the input being run */
    for (unsigned long long i = replay ? number : 0; i < (replay ? number + 1 : number); i++) {
        state = (key + 1) * 0x9E3779B97F4A7C15ull ^ (i + 1) * 0xD1B54A32D192ED03ull;
        draw(2);
        make(&in, seeds, count);
        in.bytes[0] = flags(in.bytes[0]);
        if (replay) {
            FILE *file = fopen("replay.bin", "wb");
            if (file) {
                fwrite(in.bytes, 1, in.size, file);
                fclose(file);
            }
        } else if (last && i % 1000 == 0) {
            FILE *file = fopen(last, "w");
            if (file) {
                fprintf(file, "%llu\n", i);
                fclose(file);
            }
        }
        uint8_t *exact = malloc(in.size); /* a read past the input is a finding too */
        memcpy(exact, in.bytes, in.size);
        LLVMFuzzerTestOneInput(exact, in.size);
        free(exact);
    }
    printf("%llu inputs\n", replay ? 1 : number);
    for (int i = 0; i < count; i++)
        free(seeds[i].bytes);
    free(seeds);
    free(in.bytes);
    return 0;
}
