/* The dense part of taps.h: four rows of weights share each load of the vector that they meet. */
#include "taps.h"

#ifndef FT_TARGETS
#define FT_TARGETS
#endif

FT_TARGETS void ft_dense_forward(float *restrict y, const float *restrict x, const float *restrict w, const float *bias,
                                 uint32_t ci, uint32_t co)
{
    uint32_t o = 0;
    for (; o + 4 <= co; o += 4, w += 4 * ci) {
        const float *w0 = w, *w1 = w + ci, *w2 = w1 + ci, *w3 = w2 + ci;
        float y0 = bias ? bias[o] : 0.0f, y1 = bias ? bias[o + 1] : 0.0f;
        float y2 = bias ? bias[o + 2] : 0.0f, y3 = bias ? bias[o + 3] : 0.0f;
        for (uint32_t k = 0; k < ci; k++) {
            const float v = x[k];
            y0 += w0[k] * v;
            y1 += w1[k] * v;
            y2 += w2[k] * v;
            y3 += w3[k] * v;
        }
        y[o] = y0;
        y[o + 1] = y1;
        y[o + 2] = y2;
        y[o + 3] = y3;
    }
    for (; o < co; o++, w += ci) {
        float acc = bias ? bias[o] : 0.0f;
        for (uint32_t k = 0; k < ci; k++)
            acc += w[k] * x[k];
        y[o] = acc;
    }
}

FT_TARGETS void ft_dense_backward_input(float *restrict dx, const float *restrict dy, const float *restrict w, uint32_t ci,
                                        uint32_t co)
{
    uint32_t o = 0;
    for (; o + 4 <= co; o += 4, w += 4 * ci) {
        const float *w0 = w, *w1 = w + ci, *w2 = w1 + ci, *w3 = w2 + ci;
        const float g0 = dy[o], g1 = dy[o + 1], g2 = dy[o + 2], g3 = dy[o + 3];
        for (uint32_t k = 0; k < ci; k++)
            dx[k] = (((dx[k] + w0[k] * g0) + w1[k] * g1) + w2[k] * g2) + w3[k] * g3;
    }
    for (; o < co; o++, w += ci)
        for (uint32_t k = 0; k < ci; k++)
            dx[k] += w[k] * dy[o];
}

FT_TARGETS void ft_dense_backward_weight(float *restrict dw, const float *restrict dy, const float *restrict x,
                                         uint32_t ci, uint32_t co)
{
    for (uint32_t o = 0; o < co; o++, dw += ci) {
        const float g = dy[o];
        for (uint32_t k = 0; k < ci; k++)
            dw[k] += g * x[k];
    }
}
