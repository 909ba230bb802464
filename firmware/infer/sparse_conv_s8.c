/* Convolution by pruned weights (sparse_s8.h). x (xh, xw, xc), y (yh, yw, yc); multiplier and shift for each channel; bias has
 * the zero point taken off: bias - x_zero * sum of the channel's weights. a: rows of half a band; b: the most entries of a
 * channel. Sums are of integers, so this and sparse_conv_s8_m4.c give the same bits. */
#include "scale.h"
#include "sparse_s8.h"

static void fill(int8_t *planes, const int8_t *x, const fti_op *op, const fti_bands *b, int32_t first)
{
    const uint32_t xc = op->xc, plane = b->rows * b->phases * b->pitch;
    for (uint32_t r = 0; r < b->rows; r++)
        for (uint32_t phase = 0; phase < b->phases; phase++)
            for (uint32_t i = 0; i < b->pitch; i++, planes++) {
                const int32_t row = first + (int32_t)r, col = (int32_t)(i * op->sw + phase) - op->left;
                int8_t *to = planes;
                if (row < 0 || row >= op->xh || col < 0 || col >= op->xw) {
                    for (uint32_t c = 0; c < xc; c++, to += plane)
                        *to = (int8_t)op->x_zero;
                    continue;
                }
                const int8_t *from = x + ((uint32_t)row * op->xw + (uint32_t)col) * xc;
                for (uint32_t c = 0; c < xc; c++, to += plane)
                    *to = *from++;
            }
}

/* Eight neighbours at once: named sums stay in registers. */
static void eight(int32_t sums[8], const int8_t *x, const fti_tap *tap, uint32_t n)
{
    int32_t s0 = sums[0], s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    for (const fti_tap *end = tap + n; tap != end; tap++) {
        const int8_t *from = x + tap->at;
        const int32_t w = tap->w;
        s0 += from[0] * w;
        s1 += from[1] * w;
        s2 += from[2] * w;
        s3 += from[3] * w;
        s4 += from[4] * w;
        s5 += from[5] * w;
        s6 += from[6] * w;
        s7 += from[7] * w;
    }
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3, sums[4] = s4, sums[5] = s5, sums[6] = s6, sums[7] = s7;
}

static void one(int32_t *sum, const int8_t *x, const fti_tap *tap, uint32_t n)
{
    for (const fti_tap *end = tap + n; tap != end; tap++)
        *sum += x[tap->at] * tap->w;
}

void fti_sparse_conv_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    const int32_t *bias = op->bias;
    const fti_bands b = fti_bands_of(op);
    uint16_t *places = (uint16_t *)(void *)(arena + op->work);
    fti_tap *taps = (fti_tap *)(void *)(arena + op->work + b.places_bytes);
    int8_t *planes = (int8_t *)(arena + op->work + b.places_bytes + b.taps_bytes);
    fti_places(places, op, &b, b.rows);
    for (uint32_t band = 0; band < op->yh; band += 2 * (uint32_t)op->a) {
        const uint8_t *stream = op->weight;
        const uint32_t end = band + 2 * (uint32_t)op->a < op->yh ? band + 2 * (uint32_t)op->a : op->yh;
        fill(planes, x, op, &b, (int32_t)(band * op->sh) - op->top);
        for (uint32_t c = 0; c < op->yc; c++) {
            const uint32_t n = fti_taps(taps, &stream, places, 1);
            const int8_t *line = planes;
            int8_t *y = (int8_t *)(arena + op->y) + band * op->yw * op->yc + c;
            for (uint32_t row = band; row < end; row++, line += op->sh * b.phases * b.pitch)
                for (uint32_t col = 0; col < op->yw;) {
                    int32_t sums[8] = {bias[c]};
                    const uint32_t many = col + 8 <= op->yw ? 8 : 1;
                    (many == 8 ? eight : one)(sums, line + col, taps, n);
                    for (uint32_t i = 0; i < many; i++, y += op->yc) {
                        const int32_t scaled = fti_scale(sums[i], op->multiplier[c], op->shift[c]);
                        *y = (int8_t)fti_clamp(scaled + op->y_zero, op->low, op->high);
                    }
                    col += many;
                }
        }
    }
}
