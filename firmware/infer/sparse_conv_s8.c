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
                for (const int8_t *end = from + xc / 4 * 4; from != end; from += 4, to += 4 * plane) {
                    to[0] = from[0];
                    to[plane] = from[1];
                    to[2 * plane] = from[2];
                    to[3 * plane] = from[3];
                }
                for (uint32_t c = xc / 4 * 4; c < xc; c++, to += plane)
                    *to = *from++;
            }
}

/* What a channel's sums become. */
typedef struct {
    fti_narrow narrow;
    int fast;
    int32_t m, shift, zero, low, high, bias;
    uint32_t step; /* from column to column of y */
} target;

static int8_t *put(int8_t *y, int32_t sum, const target *t)
{
    const int32_t scaled = t->fast ? fti_narrowed(sum, &t->narrow) : fti_scale(sum, t->m, t->shift) + t->zero;
    *y = (int8_t)fti_clamp(scaled, t->low, t->high);
    return y + t->step;
}

/* Neighbouring columns at once: named sums stay in registers. */
#define SUM(i) int32_t s##i = t->bias;
#define ADD(i) s##i += from[i] * w;
#define PUT(i) y[i * step] = (int8_t)fti_clamp(fti_narrowed(s##i, &n), low, high);
#define PUT_ANY(i) y = put(y, s##i, t);
#define FIRST_8(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#define FIRST_16(DO) FIRST_8(DO) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)

#define COLUMNS(name, FIRST, count)                                                                                     \
    static int8_t *name(int8_t *y, const int8_t *x, const fti_tap *tap, const fti_tap *end, const target *t)            \
    {                                                                                                                  \
        FIRST(SUM)                                                                                                     \
        for (; tap != end; tap++) {                                                                                    \
            const int8_t *from = x + tap->at;                                                                          \
            const int32_t w = tap->w;                                                                                  \
            FIRST(ADD)                                                                                                 \
        }                                                                                                              \
        if (!t->fast) {                                                                                                \
            FIRST(PUT_ANY)                                                                                             \
            return y;                                                                                                  \
        }                                                                                                              \
        const fti_narrow n = t->narrow; /* copies: a store to y could be one to *t */                                  \
        const int32_t low = t->low, high = t->high;                                                                    \
        const uint32_t step = t->step;                                                                                 \
        FIRST(PUT)                                                                                                     \
        return y + count * step;                                                                                       \
    }

COLUMNS(sixteen, FIRST_16, 16)
COLUMNS(eight, FIRST_8, 8)

static int8_t *one(int8_t *y, const int8_t *x, const fti_tap *tap, const fti_tap *end, const target *t)
{
    int32_t sum = t->bias;
    for (; tap != end; tap++)
        sum += x[tap->at] * tap->w;
    return put(y, sum, t);
}

void fti_sparse_conv_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    const int32_t *bias = op->bias;
    const fti_bands b = fti_bands_of(op);
    const uint32_t rows = 2 * (uint32_t)op->a, next = op->sh * b.phases * b.pitch, width = op->yw;
    uint16_t *places = (uint16_t *)(void *)(arena + op->work);
    fti_tap *taps = (fti_tap *)(void *)(arena + op->work + b.places_bytes);
    int8_t *planes = (int8_t *)(arena + op->work + b.places_bytes + b.taps_bytes);
    target t = {.zero = op->y_zero, .low = op->low, .high = op->high, .step = op->yc};
    fti_places(places, op, &b, b.rows);
    for (uint32_t band = 0; band < op->yh; band += rows) {
        const uint8_t *stream = op->weight;
        const uint32_t end = band + rows < op->yh ? band + rows : op->yh;
        fill(planes, x, op, &b, (int32_t)(band * op->sh) - op->top);
        for (uint32_t c = 0; c < op->yc; c++) {
            const fti_tap *last = taps + fti_taps(taps, &stream, places, 1);
            const int8_t *line = planes;
            int8_t *y = (int8_t *)(arena + op->y) + band * width * op->yc + c;
            t.m = op->multiplier[c], t.shift = op->shift[c], t.bias = bias[c];
            t.fast = fti_narrow_of(&t.narrow, t.m, t.shift, t.zero);
            for (uint32_t row = band; row < end; row++, line += next) {
                uint32_t col = 0;
                for (; col + 16 <= width; col += 16)
                    y = sixteen(y, line + col, taps, last, &t);
                for (; col + 8 <= width; col += 8)
                    y = eight(y, line + col, taps, last, &t);
                for (; col < width; col++)
                    y = one(y, line + col, taps, last, &t);
            }
        }
    }
}
