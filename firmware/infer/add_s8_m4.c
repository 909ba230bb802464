/* add_s8.c for Cortex-M with the DSP extension: four elements at a time. */
#include "fedtiny_infer.h"
#include "m4.h"
#include "scale.h"

static void any(int8_t *y, const int8_t *x, const int8_t *x2, int32_t n, const fti_op *op)
{
    for (int32_t i = 0; i < n; i++) {
        const int32_t first =
            fti_round_shift(fti_high((x[i] - op->x_zero) * (1 << 20), op->multiplier[0]), -op->shift[0]);
        const int32_t sum = first + (x2[i] - op->x2_zero) * (1 << 19);
        y[i] = (int8_t)fti_clamp(fti_scale(sum, op->multiplier[1], op->shift[1]) + op->y_zero, op->low, op->high);
    }
}

/* ((x - zero) << 20) scaled, of byte `at` of four */
#define FIRST(at) m4_high((int32_t)((uint32_t)(int8_t)(a >> (at)) << 21) - zero, m)
#define ROUND(t) ((t) + ((t) >> 31) + half) >> shift
#define SUM(t, at) (int32_t)(((uint32_t)(t) + ((uint32_t)(int8_t)(b >> (at)) << 19)) << 1) - zero2

static inline void fours(int8_t *y, const int8_t *x, const int8_t *x2, int32_t n, const fti_op *op, const m4_scale *sum,
                         const int shifted, const int whole)
{
    const int32_t zero = op->x_zero * (1 << 21), zero2 = op->x2_zero * (1 << 20), m = op->multiplier[0];
    const int32_t shift = -op->shift[0], half = shifted ? 1 << (shift - 1) : 0, low = op->low, high = op->high;
    const m4_scale s = *sum;
    for (const int8_t *end = y + n; y != end; y += 4, x += 4, x2 += 4) {
        const uint32_t a = m4_load(x), b = m4_load(x2);
        int32_t t0 = FIRST(0), t1 = FIRST(8), t2 = FIRST(16), t3 = FIRST(24);
        if (shifted) {
            t0 = ROUND(t0), t1 = ROUND(t1), t2 = ROUND(t2), t3 = ROUND(t3);
        }
        t0 = m4_scaled(SUM(t0, 0), &s), t1 = m4_scaled(SUM(t1, 8), &s);
        t2 = m4_scaled(SUM(t2, 16), &s), t3 = m4_scaled(SUM(t3, 24), &s);
        y[0] = (int8_t)(whole ? m4_int8(t0) : fti_clamp(t0, low, high));
        y[1] = (int8_t)(whole ? m4_int8(t1) : fti_clamp(t1, low, high));
        y[2] = (int8_t)(whole ? m4_int8(t2) : fti_clamp(t2, low, high));
        y[3] = (int8_t)(whole ? m4_int8(t3) : fti_clamp(t3, low, high));
    }
}

void fti_add_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x), *x2 = (const int8_t *)(arena + op->x2);
    int8_t *y = (int8_t *)(arena + op->y);
    const int32_t n = op->a / 4 * 4;
    m4_scale sum;
    const int whole = op->low == -128 && op->high == 127;
    if (!m4_scale_of(&sum, op->multiplier[1], op->shift[1], op->y_zero)) {
        any(y, x, x2, op->a, op);
        return;
    }
    if (!whole)
        op->shift[0] ? fours(y, x, x2, n, op, &sum, 1, 0) : fours(y, x, x2, n, op, &sum, 0, 0);
    else
        op->shift[0] ? fours(y, x, x2, n, op, &sum, 1, 1) : fours(y, x, x2, n, op, &sum, 0, 1);
    any(y + n, x + n, x2 + n, op->a - n, op);
}
