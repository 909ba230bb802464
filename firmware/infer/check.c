/* What an operator of a foreign blob touches: every read and write of every kernel, and every number whose size a kernel
 * relies on. Sums of int8 kernels stay below 2^31 in size: a bias below 2^30 and at most 32,767 products. */
#include "load.h"
#include "sparse_s8.h"

enum { MOST = 1 << 24, DEPTH = 32767, BIAS = 1 << 30 };

typedef struct {
    const fti_op *op;
    const fti_program *program;
    uint32_t bytes, weight_bytes;
} context;

static int fits(const context *c, uint32_t at, uint64_t elements, uint32_t size)
{
    return at % size == 0 && elements <= MOST && at + elements * size <= c->program->arena_bytes;
}

/* `bytes` at a multiple of `align` inside of the blob; a constant that is absent is not there */
static int there(const context *c, const void *constant, uint64_t bytes, uint32_t align)
{
    if (!constant)
        return 0;
    const uint32_t at = (uint32_t)((const uint8_t *)constant - c->program->blob);
    return at % align == 0 && at <= c->bytes && bytes <= c->bytes - at;
}

static int between(int32_t value, int32_t low, int32_t high) { return value >= low && value <= high; }

static int clamped(const fti_op *op)
{
    return between(op->x_zero, -128, 127) && between(op->x2_zero, -128, 127) && between(op->y_zero, -128, 127) &&
           between(op->low, -128, 127) && between(op->high, -128, 127) && op->low <= op->high;
}

static int scales(const context *c, uint32_t n, int32_t most)
{
    const fti_op *op = c->op;
    if (!there(c, op->multiplier, 4ull * n, 4) || !there(c, op->shift, n, 1))
        return 0;
    for (uint32_t i = 0; i < n; i++)
        if (op->multiplier[i] < 0 || !between(op->shift[i], -31, most))
            return 0;
    return 1;
}

static int maps(const fti_op *op)
{
    return op->xh && op->xw && op->xc && op->yh && op->yw && op->yc && op->kh && op->kw && op->sh && op->sw && op->dh &&
           op->dw;
}

static uint64_t x_size(const fti_op *op) { return (uint64_t)op->xh * op->xw * op->xc; }
static uint64_t y_size(const fti_op *op) { return (uint64_t)op->yh * op->yw * op->yc; }

static int bias(const context *c, int needed)
{
    const int32_t *values = c->op->bias;
    if (!values)
        return !needed;
    if (!there(c, values, 4ull * c->op->yc, 4))
        return 0;
    for (uint32_t i = 0; i < c->op->yc; i++)
        if (values[i] >= BIAS || values[i] <= -BIAS)
            return 0;
    return 1;
}

static int weighted(const context *c, uint32_t size)
{
    const fti_op *op = c->op;
    if (!maps(op) || !fits(c, op->x, x_size(op), size) || !fits(c, op->y, y_size(op), size))
        return 0;
    return size == 4 ? !op->bias || there(c, op->bias, 4ull * op->yc, 4) : clamped(op) && scales(c, op->yc, 30);
}

/* A stream of pruned weights for `depth` samples a channel, at most `most` entries in each. */
static int stream(const context *c, uint32_t depth, int32_t most)
{
    const uint8_t *p = c->op->weight;
    if (!there(c, p, c->weight_bytes, 1))
        return 0;
    uint32_t left = c->weight_bytes;
    for (uint32_t o = 0; o < c->op->yc; o++) {
        if (left < 2)
            return 0;
        uint32_t n = fti_u16(p), at = 0;
        p += 2, left -= 2;
        if (n > DEPTH || (most >= 0 && n > (uint32_t)most) || left < 2 * n)
            return 0;
        for (left -= 2 * n; n > 0; n--, p += 2)
            if ((at += p[0]) >= depth)
                return 0;
    }
    return 1;
}

static int sparse_conv(const context *c)
{
    const fti_op *op = c->op;
    if (!weighted(c, 1) || !bias(c, 1) || !between(op->a, 1, 65535) || !between(op->b, 0, DEPTH))
        return 0;
    if ((uint64_t)op->kh * op->kw * op->xc > DEPTH)
        return 0;
    /* the planes in 64 bits, before anything is added up in 32 */
    const uint64_t rows = 2ull * (uint32_t)op->a * op->sh + (uint64_t)op->kh * op->dh;
    const uint64_t pitch = op->yw + 4ull + (uint64_t)op->kw * op->dw;
    if (rows * pitch * op->sw * op->xc > MOST)
        return 0;
    const fti_bands b = fti_bands_of(op);
    if ((uint64_t)b.rows * b.phases * b.pitch * op->xc > 65535)
        return 0;
    /* taps lie in work, and say what is read: no result may fall on them */
    const int apart = op->y + y_size(op) <= op->work || op->work + (uint64_t)b.work_bytes <= op->y;
    return apart && fits(c, op->work, (b.work_bytes + 3) / 4, 4) && stream(c, b.depth, op->b);
}

static uint64_t pairs(uint32_t depth, uint32_t channels)
{
    return (depth + 3ull) / 4 * 4 * ((channels + 1ull) / 2 * 2);
}

static int conv(const context *c)
{
    const fti_op *op = c->op;
    const uint64_t depth = (uint64_t)op->kh * op->kw * op->xc;
    return weighted(c, 1) && bias(c, 0) && depth <= DEPTH && there(c, op->weight, pairs((uint32_t)depth, op->yc), 4) &&
           fits(c, op->work, (depth + 3) / 4 * 4, 4);
}

static int depthwise(const context *c, uint32_t size)
{
    const fti_op *op = c->op;
    return weighted(c, size) && op->yc % op->xc == 0 && op->kh * op->kw <= DEPTH && (size == 4 || bias(c, 0)) &&
           there(c, op->weight, (uint64_t)op->kh * op->kw * op->yc * size, 4);
}

static int rows(const context *c, uint32_t size)
{
    const fti_op *op = c->op;
    return op->xh && op->xc && op->yc && fits(c, op->x, (uint64_t)op->xh * op->xc, size) &&
           fits(c, op->y, (uint64_t)op->xh * op->yc, size);
}

static int dense(const context *c)
{
    const fti_op *op = c->op;
    return rows(c, 1) && clamped(op) && scales(c, op->yc, 30) && bias(c, 0) && op->xc <= DEPTH &&
           there(c, op->weight, pairs(op->xc, op->yc), 4) && fits(c, op->work, (op->xc + 3) / 4 * 2, 4);
}

static int move(const context *c, uint32_t size)
{
    const fti_op *op = c->op;
    const int32_t *n = op->weight;
    if (!there(c, n, 13 * 4, 4))
        return 0;
    uint64_t from = 1, to = 1, count = 1;
    for (int i = 0; i < 4; i++) {
        if (!between(n[i], 1, MOST) || !between(n[4 + i], 0, MOST) || !between(n[8 + i], 0, MOST))
            return 0;
        from += (uint64_t)(n[i] - 1) * (uint32_t)n[4 + i];
        to += (uint64_t)(n[i] - 1) * (uint32_t)n[8 + i];
        if ((count *= (uint32_t)n[i]) > MOST)
            return 0;
    }
    if (from > MOST || to > MOST || !fits(c, op->y, to, size))
        return 0;
    if (n[12] && (op->a < 0 || !fits(c, op->x2, (uint32_t)op->a, size)))
        return 0;
    return op->bias ? there(c, op->bias, from * size, size) : fits(c, op->x, from, size);
}

static int pool(const context *c, uint32_t size)
{
    const fti_op *op = c->op;
    return maps(op) && op->yc == op->xc && fits(c, op->x, x_size(op), size) && fits(c, op->y, y_size(op), size) &&
           (size == 4 || clamped(op));
}

static int mean(const context *c, uint32_t size)
{
    const fti_op *op = c->op;
    return op->xh && op->xw && op->xc && fits(c, op->x, x_size(op), size) &&
           fits(c, op->y, (uint64_t)op->xh * op->xc, size) && (size == 4 || (clamped(op) && scales(c, 1, 30)));
}

static int softmax_s8(const context *c)
{
    const fti_op *op = c->op;
    return op->xh && op->xc && op->xc <= 4095 && fits(c, op->x, (uint64_t)op->xh * op->xc, 1) &&
           fits(c, op->y, (uint64_t)op->xh * op->xc, 1) && scales(c, 1, 31) && op->shift[0] >= 0 &&
           between(op->a, -255, 0) && ((uint64_t)(uint32_t)-op->a << op->shift[0]) <= 1ull << 31;
}

static int same(const context *c, uint32_t x_bytes, uint32_t y_bytes, int32_t n)
{
    return n >= 0 && fits(c, c->op->x, (uint32_t)n, x_bytes) && fits(c, c->op->y, (uint32_t)n, y_bytes);
}

int fti_check(const fti_op *op, fti_code code, uint32_t weight_bytes, const fti_program *program, uint32_t bytes)
{
    const context here = {op, program, bytes, weight_bytes}, *c = &here;
    switch (code) {
    case FTI_CONV_S8:
        return conv(c);
    case FTI_DEPTHWISE_S8:
    case FTI_DEPTHWISE_F32:
        return depthwise(c, code == FTI_DEPTHWISE_S8 ? 1 : 4);
    case FTI_DENSE_S8:
        return dense(c);
    case FTI_ADD_S8:
        return same(c, 1, 1, op->a) && fits(c, op->x2, (uint32_t)op->a, 1) && clamped(op) && scales(c, 2, 30) &&
               op->shift[0] <= 0;
    case FTI_MOVE_S8:
    case FTI_MOVE_F32:
        return move(c, code == FTI_MOVE_S8 ? 1 : 4);
    case FTI_AVERAGE_POOL_S8:
    case FTI_MAX_POOL_S8:
        return pool(c, 1);
    case FTI_AVERAGE_POOL_F32:
    case FTI_MAX_POOL_F32:
        return pool(c, 4);
    case FTI_MEAN_S8:
    case FTI_MEAN_F32:
        return mean(c, code == FTI_MEAN_S8 ? 1 : 4);
    case FTI_SOFTMAX_S8:
        return softmax_s8(c);
    case FTI_RESCALE_S8:
        return same(c, 1, 1, op->a) && clamped(op) && scales(c, 1, 30);
    case FTI_QUANTIZE_S8:
        return same(c, 4, 1, op->a) && clamped(op) && there(c, op->weight, 4, 4);
    case FTI_DEQUANTIZE_S8:
        return same(c, 1, 4, op->a) && clamped(op) && there(c, op->weight, 4, 4);
    case FTI_SPARSE_CONV_S8:
        return sparse_conv(c);
    case FTI_SPARSE_DENSE_S8:
        return rows(c, 1) && clamped(op) && scales(c, op->yc, 30) && bias(c, 1) && stream(c, op->xc, -1);
    case FTI_CONV_F32:
        return weighted(c, 4) && there(c, op->weight, (uint64_t)op->kh * op->kw * op->xc * op->yc * 4, 4);
    case FTI_DENSE_F32:
        return rows(c, 4) && there(c, op->weight, (uint64_t)op->xc * op->yc * 4, 4) &&
               (!op->bias || there(c, op->bias, 4ull * op->yc, 4));
    case FTI_ADD_F32:
        return same(c, 4, 4, op->b) && fits(c, op->x2, (uint32_t)op->b, 4);
    case FTI_CLAMP_F32:
        return same(c, 4, 4, op->b);
    case FTI_SOFTMAX_F32:
        return op->xh && op->xc && fits(c, op->x, (uint64_t)op->xh * op->xc, 4) &&
               fits(c, op->y, (uint64_t)op->xh * op->xc, 4) && there(c, op->weight, 4, 4);
    case FTI_CODES:
        break;
    }
    return 0;
}
