/* Little-endian loads, and how an operator lies in a blob (firmware/INFER.md). */
#ifndef FTI_LOAD_H
#define FTI_LOAD_H

#include "fedtiny_infer.h"

enum {
    FTI_HEADER = 48,
    FTI_OP = 88,
    FTI_PORT = 24,
};

/* Codes of kernels in a blob; load.c has the table. */
typedef enum {
    FTI_CONV_S8 = 1, FTI_DEPTHWISE_S8, FTI_DENSE_S8, FTI_ADD_S8, FTI_MOVE_S8, FTI_AVERAGE_POOL_S8, FTI_MAX_POOL_S8,
    FTI_MEAN_S8, FTI_SOFTMAX_S8, FTI_RESCALE_S8, FTI_QUANTIZE_S8, FTI_DEQUANTIZE_S8, FTI_SPARSE_CONV_S8,
    FTI_SPARSE_DENSE_S8, FTI_CONV_F32, FTI_DEPTHWISE_F32, FTI_DENSE_F32, FTI_ADD_F32, FTI_MOVE_F32,
    FTI_AVERAGE_POOL_F32, FTI_MAX_POOL_F32, FTI_MEAN_F32, FTI_SOFTMAX_F32, FTI_CLAMP_F32, FTI_CODES
} fti_code;

static inline uint16_t fti_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static inline uint32_t fti_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline int32_t fti_i32(const uint8_t *p) { return (int32_t)fti_u32(p); }

/* An operator of the blob, its constants as pointers into it. */
fti_op fti_decode(const fti_program *program, uint32_t index, fti_code *code, uint32_t *weight_bytes);
/* Whether it touches nothing but its constants and the arena. */
int fti_check(const fti_op *op, fti_code code, uint32_t weight_bytes, const fti_program *program, uint32_t bytes);

#endif
