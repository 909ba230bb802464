/* Inference of a network that was imported: int8 with LiteRT's bits, or float32; dense or sparse.
 *
 * A program is a table of operators with constants, made on a host (fedtiny_export.infer). It runs in one arena that the
 * caller owns; nothing is allocated, nothing is global. Two forms of the same: a blob, checked by fti_load and then read in
 * place, and generated C (tables of fti_op), which links only the kernels that it names. */
#ifndef FEDTINY_INFER_H
#define FEDTINY_INFER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fti_op fti_op;
typedef void fti_kernel(uint8_t *arena, const fti_op *op);

/* One operator. Which members a kernel reads is said where it is defined. Maps are NHWC with N = 1; x, x2, y and work are
 * offsets in the arena in bytes, constants are pointers. */
struct fti_op {
    fti_kernel *kernel;
    const void *weight;
    const void *bias;          /* int32 for int8 kernels, float for others; 0: none */
    const int32_t *multiplier; /* with shift: scales as m * 2^(s - 31), one for each output channel, or a kernel's own */
    const int8_t *shift;
    uint32_t x, x2, y, work;
    uint16_t xh, xw, xc, yh, yw, yc;
    uint8_t kh, kw, sh, sw, dh, dw, top, left; /* kernel, stride, dilation, padding in pixels */
    int32_t x_zero, x2_zero, y_zero;
    int32_t low, high; /* what an int8 result is clamped to */
    int32_t a, b;      /* a kernel's own */
};

typedef enum {
    FTI_OK = 0,
    FTI_ERR_FORMAT,      /* no blob of an inference program, or a damaged one */
    FTI_ERR_VERSION,     /* of a newer fedtiny */
    FTI_ERR_UNSUPPORTED, /* an operator, or a size, that this build lacks */
    FTI_ERR_ALIGN        /* the blob does not lie at a multiple of 4 */
} fti_status;

/* A checked blob. The blob stays where it is and must not change. */
typedef struct {
    const uint8_t *blob;
    uint32_t ops, inputs, outputs, arena_bytes;
} fti_program;

typedef enum { FTI_FLOAT32 = 0, FTI_INT8 = 1 } fti_type;

/* An input or output: `elements` of a type, `at` bytes into the arena. Of int8: value = scale * (q - zero). */
typedef struct {
    uint32_t at, elements;
    fti_type type;
    float scale;
    int32_t zero;
} fti_port;

/* Checks every byte that a run will read: what it accepts touches nothing outside of the blob and of an arena of
 * program->arena_bytes. Foreign blobs are safe. */
fti_status fti_load(fti_program *program, const void *blob, size_t bytes);
fti_port fti_input(const fti_program *program, uint32_t index);  /* index < inputs */
fti_port fti_output(const fti_program *program, uint32_t index); /* index < outputs */

/* The arena is 8-byte aligned. Inputs are written to their places before a run, outputs read from theirs after it; a run
 * may overwrite its inputs. */
void fti_run(const fti_program *program, void *arena);
void fti_run_op(const fti_program *program, void *arena, uint32_t index); /* one operator: all in order are a run */

/* Kernels, for generated C and the loader. */
fti_kernel fti_conv_s8, fti_depthwise_s8, fti_dense_s8, fti_add_s8, fti_move_s8, fti_average_pool_s8, fti_max_pool_s8,
    fti_mean_s8, fti_softmax_s8, fti_rescale_s8, fti_quantize_s8, fti_dequantize_s8, fti_sparse_conv_s8,
    fti_sparse_dense_s8;
fti_kernel fti_conv_f32, fti_depthwise_f32, fti_dense_f32, fti_add_f32, fti_move_f32, fti_average_pool_f32,
    fti_max_pool_f32, fti_mean_f32, fti_softmax_f32, fti_clamp_f32;

#ifdef __cplusplus
}
#endif
#endif
