#include "columns_s8.h"

#include "scale.h"

void fti_widen_s8(int16_t *to, const int8_t *from, uint32_t rows, uint32_t n, uint32_t step, int32_t zero)
{
    for (; rows > 0; rows--, from += step - n)
        for (const int8_t *end = from + n; from != end;)
            *to++ = (int16_t)(*from++ - zero);
}

/* One channel's results of two columns. */
static void store(int8_t *y0, int8_t *y1, int32_t s0, int32_t s1, uint32_t c, const fti_op *op)
{
    const int32_t m = op->multiplier[c], shift = op->shift[c], zero = op->y_zero, low = op->low, high = op->high;
    fti_narrow n;
    if (fti_narrow_of(&n, m, shift, zero)) {
        s0 = fti_narrowed(s0, &n);
        s1 = fti_narrowed(s1, &n);
    } else {
        s0 = fti_scale(s0, m, shift) + zero;
        s1 = fti_scale(s1, m, shift) + zero;
    }
    y0[c] = (int8_t)fti_clamp(s0, low, high);
    y1[c] = (int8_t)fti_clamp(s1, low, high);
}

void fti_columns_s8(int8_t *y0, int8_t *y1, const int16_t *x0, const int16_t *x1, uint32_t quads, const fti_op *op)
{
    const int8_t *w = op->weight;
    const int32_t *bias = op->bias;
    const uint32_t channels = op->yc;
    for (uint32_t c = 0; c < channels; c += 2) {
        int32_t s00 = bias ? bias[c] : 0, s10 = s00, s01 = bias && c + 1 < channels ? bias[c + 1] : 0, s11 = s01;
        const int16_t *a = x0, *b = x1;
        for (const int16_t *end = a + 4 * quads; a != end; a += 4, b += 4, w += 8) {
            s00 += a[0] * w[0] + a[2] * w[1] + a[1] * w[2] + a[3] * w[3];
            s10 += b[0] * w[0] + b[2] * w[1] + b[1] * w[2] + b[3] * w[3];
            s01 += a[0] * w[4] + a[2] * w[5] + a[1] * w[6] + a[3] * w[7];
            s11 += b[0] * w[4] + b[2] * w[5] + b[1] * w[6] + b[3] * w[7];
        }
        store(y0, y1, s00, s10, c, op);
        if (c + 1 < channels)
            store(y0, y1, s01, s11, c + 1, op);
    }
}

void fti_column_s8(int8_t *y, const int16_t *x, uint32_t quads, const fti_op *op)
{
    const int8_t *w = op->weight;
    const int32_t *bias = op->bias;
    for (uint32_t c = 0; c < op->yc; c += 2) {
        int32_t sums[2] = {bias ? bias[c] : 0, bias && c + 1 < op->yc ? bias[c + 1] : 0};
        for (const int16_t *a = x, *end = a + 4 * quads; a != end; a += 4, w += 8) {
            sums[0] += a[0] * w[0] + a[2] * w[1] + a[1] * w[2] + a[3] * w[3];
            sums[1] += a[0] * w[4] + a[2] * w[5] + a[1] * w[6] + a[3] * w[7];
        }
        for (uint32_t i = 0; i < 2 && c + i < op->yc; i++) {
            const int32_t scaled = fti_scale_once(sums[i], op->multiplier[c + i], op->shift[c + i]);
            y[c + i] = (int8_t)fti_clamp(scaled + op->y_zero, op->low, op->high);
        }
    }
}
