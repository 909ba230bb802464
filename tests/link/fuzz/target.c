/* One input against the target that FUZZ_TARGET names. */
#include <stdio.h>
#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    const char *name;
    void (*run)(fuzz_input in);
} targets[] = {
    {"message", fuzz_message}, {"numbers", fuzz_number_list}, {"cobs", fuzz_cobs},     {"mask", fuzz_mask},
    {"samples", fuzz_samples}, {"record", fuzz_record},       {"topic", fuzz_topic},   {"frame", fuzz_frame},
    {"handshake", fuzz_handshake}, {"transfer", fuzz_transfer}, {"values", fuzz_values}, {"line", fuzz_line},
    {"session", fuzz_session}, {"task", fuzz_task}, {"saver", fuzz_saver},
};

uint8_t *fuzz_piece(fuzz_input *in, size_t most, size_t *count)
{
    *count = in->left < most ? in->left : most;
    uint8_t *piece = malloc(*count ? *count : 1);
    HOLDS(piece != 0);
    memcpy(piece, in->at, *count);
    in->at += *count;
    in->left -= *count;
    return piece;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*run)(fuzz_input in);
    const char *name = run ? "" : getenv("FUZZ_TARGET");
    for (size_t i = 0; name && i < sizeof targets / sizeof *targets; i++)
        if (strcmp(name, targets[i].name) == 0)
            run = targets[i].run;
    if (!run) {
        fprintf(stderr, "FUZZ_TARGET has to name a target: see the table in target.c\n");
        exit(2);
    }
    if (size <= FUZZ_MOST)
        run((fuzz_input){data, size});
    return 0;
}
