/* Read access to a packed model (BLOB.md). ft_blob_open checks everything; the getters below trust that it did. */
#ifndef FT_BLOB_H
#define FT_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fedtiny.h"
#include "mask.h"

enum { FT_OP_CONV2D = 1, FT_OP_LINEAR, FT_OP_BATCHNORM, FT_OP_GROUPNORM, FT_OP_RELU, FT_OP_RELU6, FT_OP_MAXPOOL,
       FT_OP_AVGPOOL, FT_OP_ADD, FT_OP_FLATTEN };
enum { FT_ROLE_WEIGHT = 1, FT_ROLE_BIAS, FT_ROLE_GAMMA, FT_ROLE_BETA, FT_ROLE_MEAN, FT_ROLE_VAR };
enum { FT_STORAGE_DENSE = 0 }; /* others are FT_MASK_* */
enum { FT_FLAG_COUNT_PAD = 1 };
#define FT_NONE 0xFFFFu

typedef struct {
    const uint8_t *bytes;
    uint32_t size;
    uint32_t abi;
    uint16_t tensors, ops, params, input, output;
    uint32_t tensor_at, op_at, param_at;
} ft_blob;

typedef struct {
    uint16_t c, h, w;
} ft_shape;

typedef struct {
    uint8_t kind, flags;
    uint16_t in[2], out, param[4];
    uint16_t kh, kw;
    uint8_t sh, sw, pt, pl, pb, pr;
    uint16_t groups;
    float eps;
} ft_op;

typedef struct {
    uint8_t role, storage, ndim;
    uint16_t dim[4];
    uint32_t elements, live;
    uint32_t mask_at, mask_bytes, values_at;
} ft_param;

/* CRC-32 (IEEE): starts as all ones, and the end's complement is what is stored. */
uint32_t ft_blob_crc(uint32_t crc, const uint8_t *p, uint32_t n);
ft_status ft_blob_open(ft_blob *blob, const uint8_t *bytes, size_t size);
ft_shape ft_blob_tensor(const ft_blob *blob, uint32_t index);
ft_op ft_blob_op(const ft_blob *blob, uint32_t index);
ft_param ft_blob_param(const ft_blob *blob, uint32_t index);
ft_mask ft_blob_mask(const ft_blob *blob, const ft_param *param);
uint32_t ft_blob_writer(const ft_blob *blob, uint32_t tensor);  /* the operator that gives a tensor; FT_NONE: none */
uint32_t ft_blob_user(const ft_blob *blob, uint32_t param);     /* the operator that owns a parameter; FT_NONE: none */
uint32_t ft_blob_readers(const ft_blob *blob, uint32_t tensor); /* how often operators read it */
float ft_blob_value(const ft_blob *blob, const ft_param *param, uint32_t live_index);

static inline uint32_t ft_shape_size(ft_shape s) { return (uint32_t)s.c * s.h * s.w; }

#endif
