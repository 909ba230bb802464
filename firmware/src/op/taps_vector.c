/* taps.h with the compiler's vector types: the same additions in the same order as taps.c, eight floats at a time.
 * Built in place of taps.c where vectors pay (hosts). */
#include "taps.h"

#include <string.h>

typedef float v8 __attribute__((vector_size(32)));

#ifndef FT_TARGETS /* e.g. __attribute__((target_clones("avx2", "default"))): one function for each instruction set */
#define FT_TARGETS
#endif

static inline __attribute__((always_inline)) v8 load(const float *p)
{
    v8 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline __attribute__((always_inline)) void store(float *p, v8 v) { memcpy(p, &v, sizeof v); }

static inline __attribute__((always_inline)) v8 splat(float x) { return (v8){x, x, x, x, x, x, x, x}; }

/* The last tile may compute up to FT_TAPS_SLACK floats past n; they are dropped. */
FT_TARGETS void ft_taps_forward(float *y, const float *x, const float *w, const uint16_t *at, uint32_t taps,
                                uint32_t pitch, float bias, uint32_t n)
{
    uint32_t i = 0;
    while (n - i > 8 || n == i + 8) {
        uint32_t left = n - i;
        if (left > 16) {
            v8 a = splat(bias), b = a, c = a, d = a;
            for (uint32_t k = 0; k < taps; k++) {
                const float *run = x + (uint32_t)at[k] * pitch + i;
                v8 weight = splat(w[k]);
                a += weight * load(run);
                b += weight * load(run + 8);
                c += weight * load(run + 16);
                d += weight * load(run + 24);
            }
            if (left >= 32) {
                store(y + i, a);
                store(y + i + 8, b);
                store(y + i + 16, c);
                store(y + i + 24, d);
                i += 32;
            } else {
                float tile[32];
                store(tile, a);
                store(tile + 8, b);
                store(tile + 16, c);
                store(tile + 24, d);
                memcpy(y + i, tile, left * sizeof *y);
                return;
            }
        } else {
            v8 a = splat(bias), b = a;
            for (uint32_t k = 0; k < taps; k++) {
                const float *run = x + (uint32_t)at[k] * pitch + i;
                v8 weight = splat(w[k]);
                a += weight * load(run);
                b += weight * load(run + 8);
            }
            float tile[16];
            store(tile, a);
            store(tile + 8, b);
            memcpy(y + i, tile, left * sizeof *y);
            return;
        }
    }
    for (; i < n; i++) {
        float acc = bias;
        for (uint32_t k = 0; k < taps; k++)
            acc += w[k] * x[(uint32_t)at[k] * pitch + i];
        y[i] = acc;
    }
}

FT_TARGETS void ft_taps_backward_input(float *dx, const float *dy, const float *w, const uint16_t *at, uint32_t taps,
                                       uint32_t pitch, uint32_t n)
{
    for (uint32_t k = 0; k < taps; k++) {
        float *run = dx + (uint32_t)at[k] * pitch;
        float weight = w[k];
        v8 wide = splat(weight);
        uint32_t i = 0;
        for (; i + 8 <= n; i += 8)
            store(run + i, load(run + i) + wide * load(dy + i));
        for (; i < n; i++)
            run[i] += weight * dy[i];
    }
}

FT_TARGETS void ft_taps_backward_weight(float *dw, const float *dy, const float *x, const uint16_t *at, uint32_t taps,
                                        uint32_t pitch, uint32_t n)
{
    for (uint32_t k = 0; k < taps; k++) {
        const float *run = x + (uint32_t)at[k] * pitch;
        float lanes[FT_LANES];
        v8 sum = splat(0.0f);
        uint32_t i = 0;
        for (; i + 8 <= n; i += 8)
            sum += load(dy + i) * load(run + i);
        store(lanes, sum);
        for (uint32_t j = 0; i < n; i++, j++)
            lanes[j] += dy[i] * run[i];
        dw[k] += ft_lanes_total(lanes);
    }
}

FT_TARGETS void ft_lanes_sum(float lanes[FT_LANES], const float *x, uint32_t n)
{
    v8 sum = load(lanes);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        sum += load(x + i);
    store(lanes, sum);
    for (uint32_t j = 0; i < n; i++, j++)
        lanes[j] += x[i];
}

FT_TARGETS void ft_lanes_squares(float lanes[FT_LANES], const float *x, float mean, uint32_t n)
{
    v8 sum = load(lanes), centre = splat(mean);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        v8 d = load(x + i) - centre;
        sum += d * d;
    }
    store(lanes, sum);
    for (uint32_t j = 0; i < n; i++, j++)
        lanes[j] += (x[i] - mean) * (x[i] - mean);
}

FT_TARGETS void ft_lanes_dot(float lanes[FT_LANES], const float *a, const float *x, float mean, uint32_t n)
{
    v8 sum = load(lanes), centre = splat(mean);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        sum += load(a + i) * (load(x + i) - centre);
    store(lanes, sum);
    for (uint32_t j = 0; i < n; i++, j++)
        lanes[j] += a[i] * (x[i] - mean);
}
