/* Mutates the seeds given, the same inputs for the same seed number: driver COUNT SEED FILE...; FUZZ_TARGET says for which target. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

enum { MOST = 1 << 14 };

static unsigned long long state;

static unsigned draw(unsigned below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)((state * 0x2545F4914F6CDD1Dull) >> 33) % below;
}

static size_t mutate(unsigned char *in, size_t size, const unsigned char *other, size_t others)
{
    static const unsigned char odd[] = {0, 1, 3, 4, 8, 23, 24, 25, 26, 27, 31, 63, 64, 127, 128, 254, 255};
    size_t at = draw((unsigned)size), n = 1 + draw(8), from;
    switch (draw(7)) {
    case 0:
        in[at] ^= (unsigned char)(1u << draw(8));
        break;
    case 1:
        in[at] = odd[draw(sizeof odd)];
        break;
    case 2:
        for (; n && at < size; n--)
            in[at++] = (unsigned char)draw(256);
        break;
    case 3:
        n = n < size - at ? n : size - at;
        memmove(in + at, in + at + n, size - at - n);
        size -= n;
        break;
    case 4:
        if (size + n <= MOST) {
            memmove(in + at + n, in + at, size - at);
            size += n;
        }
        break;
    case 5:
        from = draw((unsigned)others);
        n = 1 + draw(64);
        n = n < others - from ? n : others - from;
        n = n < size - at ? n : size - at;
        memcpy(in + at, other + from, n);
        break;
    default:
        if (draw(8) == 0)
            size = at + 1;
    }
    return size ? size : 1;
}

int main(int argc, char **argv)
{
    unsigned long long count = argc > 3 ? strtoull(argv[1], 0, 10) : 0, key = argc > 3 ? strtoull(argv[2], 0, 10) : 0;
    static unsigned char seeds[256][MOST], in[MOST];
    static size_t sizes[256];
    int files = 0;
    for (int i = 3; i < argc && files < 256; i++, files++) {
        FILE *file = fopen(argv[i], "rb");
        sizes[files] = file ? fread(seeds[files], 1, MOST, file) : 0;
        if (!file || fclose(file) || !sizes[files])
            return 2;
    }
    if (!files)
        return 2;
    const char *last = getenv("FUZZ_LAST"); /* a file that always holds the number of a recent input */
    for (unsigned long long i = 0; i < count; i++) {
        state = (key + 1) * 0x9E3779B97F4A7C15ull ^ (i + 1) * 0xD1B54A32D192ED03ull;
        unsigned seed = draw((unsigned)files);
        size_t size = sizes[seed];
        memcpy(in, seeds[seed], size);
        for (unsigned n = draw(5); n--;) {
            unsigned other = draw((unsigned)files);
            size = mutate(in, size, seeds[other], sizes[other]);
        }
        if (last && i % 1000 == 0) {
            FILE *file = fopen(last, "w");
            if (file) {
                fprintf(file, "%llu\n", i);
                fclose(file);
            }
        }
        unsigned char *exact = malloc(size); /* a read past the input is a finding too */
        memcpy(exact, in, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    printf("%llu inputs\n", count);
    return 0;
}
