#include "columns_s8.h"

#include "scale.h"

void fti_widen_s8(int16_t *to, const int8_t *from, uint32_t n, int32_t zero)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = (int16_t)(from[i] - zero);
}

static int8_t store(int32_t scaled, const fti_op *op)
{
    return (int8_t)fti_clamp(scaled + op->y_zero, op->low, op->high);
}

static int8_t finish(const fti_op *op, uint32_t c, int32_t sum)
{
    return store(fti_scale(sum, op->multiplier[c], op->shift[c]), op);
}

void fti_columns_s8(int8_t *y0, int8_t *y1, const int16_t *x0, const int16_t *x1, uint32_t quads, const fti_op *op)
{
    const int8_t *w = op->weight;
    const int32_t *bias = op->bias;
    for (uint32_t c = 0; c < op->yc; c += 2) {
        int32_t s00 = bias ? bias[c] : 0, s10 = s00, s01 = bias && c + 1 < op->yc ? bias[c + 1] : 0, s11 = s01;
        const int16_t *a = x0, *b = x1;
        for (uint32_t q = 0; q < quads; q++, a += 4, b += 4, w += 8) {
            s00 += a[0] * w[0] + a[2] * w[1] + a[1] * w[2] + a[3] * w[3];
            s10 += b[0] * w[0] + b[2] * w[1] + b[1] * w[2] + b[3] * w[3];
            s01 += a[0] * w[4] + a[2] * w[5] + a[1] * w[6] + a[3] * w[7];
            s11 += b[0] * w[4] + b[2] * w[5] + b[1] * w[6] + b[3] * w[7];
        }
        y0[c] = finish(op, c, s00);
        y1[c] = finish(op, c, s10);
        if (c + 1 < op->yc) {
            y0[c + 1] = finish(op, c + 1, s01);
            y1[c + 1] = finish(op, c + 1, s11);
        }
    }
}

void fti_column_s8(int8_t *y, const int16_t *x, uint32_t quads, const fti_op *op)
{
    const int8_t *w = op->weight;
    const int32_t *bias = op->bias;
    for (uint32_t c = 0; c < op->yc; c += 2) {
        int32_t s0 = bias ? bias[c] : 0, s1 = bias && c + 1 < op->yc ? bias[c + 1] : 0;
        const int16_t *a = x;
        for (uint32_t q = 0; q < quads; q++, a += 4, w += 8) {
            s0 += a[0] * w[0] + a[2] * w[1] + a[1] * w[2] + a[3] * w[3];
            s1 += a[0] * w[4] + a[2] * w[5] + a[1] * w[6] + a[3] * w[7];
        }
        y[c] = store(fti_scale_once(s0, op->multiplier[c], op->shift[c]), op);
        if (c + 1 < op->yc)
            y[c + 1] = store(fti_scale_once(s1, op->multiplier[c + 1], op->shift[c + 1]), op);
    }
}
