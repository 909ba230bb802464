/* depthwise_s8.c for Cortex-M with the DSP extension: four channels at a time where each has one output. */
#include "fedtiny_infer.h"
#include "m4.h"
#include "scale.h"
#include "window.h"

/* Four channels of one output pixel: x and w at the window's first tap inside of the map. */
static void four(int32_t sums[4], const int8_t *x, const int8_t *w, uint32_t rows, uint32_t cols, const fti_op *op)
{
    const uint32_t x_step = op->dw * (uint32_t)op->xc, w_step = op->yc;
    const uint32_t x_line = op->dh * (uint32_t)op->xw * op->xc - cols * x_step, w_line = (op->kw - cols) * w_step;
    const uint32_t zero = (uint32_t)(-op->x_zero & 0xFFFF) * 0x10001u;
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
    for (; rows > 0; rows--, x += x_line, w += w_line)
        for (uint32_t j = cols; j > 0; j--, x += x_step, w += w_step) {
            const uint32_t a = m4_load(x), b = m4_load(w);
            const uint32_t even = m4_even_add(zero, a), odd = m4_odd_add(zero, a), we = m4_even(b), wo = m4_odd(b);
            s0 = m4_lower(even, we, s0);
            s2 = m4_upper(even, we, s2);
            s1 = m4_lower(odd, wo, s1);
            s3 = m4_upper(odd, wo, s3);
        }
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
}

static int32_t one(int32_t sum, const int8_t *x, const int8_t *w, uint32_t rows, uint32_t cols, const fti_op *op)
{
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < cols; j++)
            sum += (x[(i * op->dh * op->xw + j * op->dw) * op->xc] - op->x_zero) * w[(i * op->kw + j) * op->yc];
    return sum;
}

static void store(int8_t *y, int32_t sum, uint32_t c, const fti_op *op)
{
    const int32_t m = op->multiplier[c], shift = op->shift[c];
    fti_narrow s;
    if (fti_narrow_of(&s, m, shift, op->y_zero))
        sum = m4_narrowed((int32_t)((uint32_t)sum << 1), &s);
    else
        sum = fti_scale(sum, m, shift) + op->y_zero;
    *y = (int8_t)fti_clamp(sum, op->low, op->high);
}

void fti_depthwise_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    const int32_t *bias = op->bias;
    int8_t *y = (int8_t *)(arena + op->y);
    const uint32_t xc = op->xc, yc = op->yc, many = yc / xc, fours = many == 1 ? yc / 4 * 4 : 0;
    for (uint32_t row = 0; row < op->yh; row++) {
        const fti_span rows = fti_window(row, op->sh, op->top, op->kh, op->dh, op->xh);
        for (uint32_t col = 0; col < op->yw; col++, y += yc) {
            const fti_span cols = fti_window(col, op->sw, op->left, op->kw, op->dw, op->xw);
            const uint32_t high = rows.to - rows.from, wide = cols.to - cols.from;
            const int8_t *w = (const int8_t *)op->weight + (rows.from * op->kw + cols.from) * yc, *from = x;
            if (high && wide)
                from += ((uint32_t)(rows.at + (int32_t)(rows.from * op->dh)) * op->xw +
                         (uint32_t)(cols.at + (int32_t)(cols.from * op->dw))) * xc;
            uint32_t c = 0;
            for (; c < fours; c += 4) {
                int32_t sums[4] = {0, 0, 0, 0};
                if (bias)
                    memcpy(sums, bias + c, sizeof sums);
                if (wide)
                    four(sums, from + c, w + c, high, wide, op);
                for (uint32_t i = 0; i < 4; i++)
                    store(y + c + i, sums[i], c + i, op);
            }
            for (; c < yc; c++)
                store(y + c, one(bias ? bias[c] : 0, from + c / many, w + c, wide ? high : 0, wide, op), c, op);
        }
    }
}
