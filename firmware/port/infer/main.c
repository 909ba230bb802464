/* Runs a program of the inference engine on samples from files: infer BLOB WANTED INPUTS OUTPUTS
 *
 * INPUTS: the samples, each its inputs one after the other. WANTED: u32 triples (step, at, bytes), steps ascending: what is
 * copied from the arena into OUTPUTS when a step has run; step 0 is before the first. Where WANTED names no step before the last
 * a sample is one call and prints "run INSTRUCTIONS" (0 where nothing counts); else each operator prints "op INSTRUCTIONS". */
#include <string.h>

#include "fedtiny_infer.h"
#include "port.h"

typedef struct {
    uint8_t *at;
    uint32_t left;
} room;

static void fail(const char *what)
{
    port_print(what);
    port_print("\n");
    port_exit(1);
}

static uint8_t *take(room *r, uint32_t bytes)
{
    uint8_t *taken = r->at;
    bytes = (bytes + 7) / 8 * 8;
    if (bytes > r->left)
        fail("out of memory");
    r->at += bytes;
    r->left -= bytes;
    return taken;
}

static uint8_t *file(room *r, const char *path, uint32_t *bytes)
{
    *bytes = port_read_file(path, r->at, r->left);
    if (*bytes == PORT_FAILED)
        fail("a file is missing, or larger than memory");
    return take(r, *bytes);
}

static uint32_t word(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

/* One operator, or with index = ops all of them. */
static void counted(const char *word, const fti_program *program, uint8_t *arena, uint32_t index)
{
    const uint64_t idle = port_count(), before = port_count();
    if (index == program->ops)
        fti_run(program, arena);
    else
        fti_run_op(program, arena, index);
    const uint64_t taken = port_count() - before - (before - idle);
    port_print(word);
    port_print_number(taken);
    port_print("\n");
}

int main(int argc, char **argv)
{
    room r;
    fti_program program;
    uint32_t blob_bytes, wanted_bytes, input_bytes, sample_bytes = 0, result_bytes = 0;
    if (argc != 5)
        fail("infer BLOB WANTED INPUTS OUTPUTS");
    r.at = port_memory(&r.left);
    const uint8_t *blob = file(&r, argv[1], &blob_bytes), *wanted = file(&r, argv[2], &wanted_bytes);
    if (fti_load(&program, blob, blob_bytes) != FTI_OK)
        fail("no program that this engine runs");
    uint8_t *arena = take(&r, program.arena_bytes);
    const uint8_t *inputs = file(&r, argv[3], &input_bytes);
    for (uint32_t i = 0; i < program.inputs; i++)
        sample_bytes += fti_input(&program, i).elements * (fti_input(&program, i).type == FTI_INT8 ? 1 : 4);
    for (uint32_t i = 0; i + 12 <= wanted_bytes; i += 12)
        result_bytes += word(wanted + i + 8);
    const uint32_t samples = sample_bytes ? input_bytes / sample_bytes : 1;
    const int whole = wanted_bytes < 12 || word(wanted) >= program.ops;
    uint8_t *results = take(&r, samples * result_bytes), *to = results;
    for (uint32_t s = 0; s < samples; s++) {
        for (uint32_t i = 0; i < program.inputs; i++) {
            const fti_port port = fti_input(&program, i);
            const uint32_t bytes = port.elements * (port.type == FTI_INT8 ? 1 : 4);
            memcpy(arena + port.at, inputs, bytes);
            inputs += bytes;
        }
        const uint8_t *next = wanted, *end = wanted + wanted_bytes;
        if (whole)
            counted("run ", &program, arena, program.ops);
        for (uint32_t step = whole ? program.ops : 0; step <= program.ops; step++) {
            if (!whole && step > 0)
                counted("op ", &program, arena, step - 1);
            for (; next + 12 <= end && word(next) == step; next += 12) {
                memcpy(to, arena + word(next + 4), word(next + 8));
                to += word(next + 8);
            }
        }
    }
    if (port_write_file(argv[4], results, (uint32_t)(to - results)))
        fail("the results cannot be written");
    return 0;
}
