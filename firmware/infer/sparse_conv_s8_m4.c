/* sparse_conv_s8.c for Cortex-M with the DSP extension. Two samples, `a` output rows apart, lie in one word as their sum
 * x + 2^23 x', so that one 64-bit multiply-add serves both: a channel's weights sum up to less than 2^15, so neither sum
 * reaches the other. What a program's maker did not keep to makes wrong numbers, no wrong accesses. */
#include <stddef.h>

#include "m4.h"
#include "scale.h"
#include "sparse_s8.h"

/* One channel of two output rows, four columns at a time: sparse_conv_s8_m4.S reads this. */
typedef struct {
    const fti_tap *taps; /* in pairs; one whose `at` is all ones ends them */
    const int32_t *x;
    int8_t *y, *y2;
    uint32_t step;  /* from column to column of y */
    uint32_t tiles;
    int32_t m, shift, add, twice_bias;
    int32_t low, high;
} fti_sparse_row;

typedef char fti_row_is_as_assembled[offsetof(fti_sparse_row, twice_bias) == 36 && offsetof(fti_sparse_row, high) == 44 ? 1 : -1];

void fti_sparse_tiles_s8(const fti_sparse_row *row);
/* to[c plane] = x[c] + 2^23 x2[c] for 4 fours of channels; fours > 0 */
void fti_sparse_pairs_s8(int32_t *to, const int8_t *x, const int8_t *x2, uint32_t fours, uint32_t plane_bytes);

static void pairs(int32_t *to, const int8_t *lo, const int8_t *hi, uint32_t channels, uint32_t plane)
{
    const uint32_t whole = channels / 4 * 4;
    if (whole)
        fti_sparse_pairs_s8(to, lo, hi, whole / 4, 4 * plane);
    for (uint32_t c = whole; c < channels; c++)
        to[c * plane] = lo[c] + (int32_t)((uint32_t)hi[c] << 23);
}

/* `from`, the zero point where a row or column is outside. */
static void fill(int32_t *planes, const int8_t *x, const fti_op *op, const fti_bands *b, int32_t first)
{
    const uint32_t xc = op->xc, plane = b->half_rows * b->phases * b->pitch, line = (uint32_t)op->xw * xc;
    const int32_t apart = op->a * op->sh, outside = op->x_zero + (int32_t)((uint32_t)op->x_zero << 23);
    for (uint32_t r = 0; r < b->half_rows; r++)
        for (uint32_t phase = 0; phase < b->phases; phase++)
            for (uint32_t i = 0; i < b->pitch; i++, planes++) {
                const int32_t row = first + (int32_t)r, row2 = row + apart, col = (int32_t)(i * op->sw + phase) - op->left;
                const int inside = col >= 0 && col < op->xw, has = inside && row >= 0 && row < op->xh;
                const int has2 = inside && row2 >= 0 && row2 < op->xh;
                const int8_t *lo = x + row * (int32_t)line + col * (int32_t)xc, *hi = lo + apart * (int32_t)line;
                int32_t *to = planes;
                if (has && has2)
                    pairs(to, lo, hi, xc, plane);
                else if (has)
                    for (uint32_t c = 0; c < xc; c++, to += plane)
                        *to = *lo++ + (int32_t)((uint32_t)op->x_zero << 23);
                else if (has2)
                    for (uint32_t c = 0; c < xc; c++, to += plane)
                        *to = op->x_zero + (int32_t)((uint32_t)*hi++ << 23);
                else
                    for (uint32_t c = 0; c < xc; c++, to += plane)
                        *to = outside;
            }
}

/* Pairs without those of weight 0, and the end. */
static void finish(fti_tap *taps, uint32_t n)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++)
        if (taps[i].w)
            taps[kept++] = taps[i];
    if (kept % 2)
        taps[kept++] = (fti_tap){0, 0};
    taps[kept] = (fti_tap){0xFFFFFFFFu, 0};
}

/* Any scale, any number of columns. */
static void slow(const fti_sparse_row *r, const fti_op *op, uint32_t c, uint32_t cols, int32_t bias)
{
    for (uint32_t col = 0; col < cols; col++) {
        int64_t both = 0;
        for (const fti_tap *tap = r->taps; tap->at != 0xFFFFFFFFu; tap++)
            both += (int64_t)r->x[tap->at / 4 + col] * tap->w;
        const int32_t low = (int32_t)((uint32_t)both << 9) >> 9, high = (int32_t)((both + (1 << 22)) >> 23);
        const int32_t scaled = fti_scale(low + bias, op->multiplier[c], op->shift[c]) + op->y_zero;
        const int32_t scaled2 = fti_scale(high + bias, op->multiplier[c], op->shift[c]) + op->y_zero;
        r->y2[col * r->step] = (int8_t)fti_clamp(scaled2, op->low, op->high);
        r->y[col * r->step] = (int8_t)fti_clamp(scaled, op->low, op->high);
    }
}

void fti_sparse_conv_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    int8_t *y = (int8_t *)(arena + op->y);
    const int32_t *bias = op->bias;
    const fti_bands b = fti_bands_of(op);
    const uint32_t half = (uint32_t)op->a, line = (uint32_t)op->yw * op->yc, next = op->sh * b.phases * b.pitch;
    uint16_t *places = (uint16_t *)(void *)(arena + op->work);
    fti_tap *taps = (fti_tap *)(void *)(arena + op->work + b.places_bytes);
    int32_t *planes = (int32_t *)(void *)(arena + op->work + b.places_bytes + b.taps_bytes);
    fti_places(places, op, &b, b.half_rows);
    for (uint32_t band = 0; band < op->yh; band += 2 * half) {
        const uint8_t *stream = op->weight;
        const uint32_t rows = op->yh - band < half ? op->yh - band : half;
        fill(planes, x, op, &b, (int32_t)(band * op->sh) - op->top);
        for (uint32_t c = 0; c < op->yc; c++) {
            fti_sparse_row r = {.taps = taps, .step = op->yc, .low = op->low, .high = op->high};
            fti_narrow s;
            finish(taps, fti_taps(taps, &stream, places, 4));
            const int fast = fti_narrow_of(&s, op->multiplier[c], op->shift[c], op->y_zero);
            r.m = s.m, r.shift = s.shift, r.add = s.add, r.twice_bias = (int32_t)((uint32_t)bias[c] << 1);
            for (uint32_t row = 0; row < rows; row++) {
                r.x = planes + row * next;
                r.y = y + (band + row) * line + c;
                r.y2 = band + row + half < op->yh ? r.y + half * line : r.y; /* written first, so what is none is lost */
                if (!fast || op->yw < 4) {
                    slow(&r, op, c, op->yw, bias[c]);
                    continue;
                }
                r.tiles = op->yw / 4u;
                fti_sparse_tiles_s8(&r);
                if (op->yw % 4) { /* the last four columns, some of them again */
                    r.x += op->yw - 4, r.y += (op->yw - 4) * op->yc, r.y2 += (op->yw - 4) * op->yc;
                    r.tiles = 1;
                    fti_sparse_tiles_s8(&r);
                }
            }
        }
    }
}
