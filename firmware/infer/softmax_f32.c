/* Softmax of beta x over the last of two axes: xh rows of xc; y may be x. weight: beta. Its own exponential: the same bits on
 * every target. */
#include <string.h>

#include "fedtiny_infer.h"

/* exp(x) for x <= 0, to about an ulp; 0 below -87, 1 above 0 */
static float exp_below(float x)
{
    if (!(x > -87.0f))
        return 0.0f;
    if (x > 0.0f)
        return 1.0f;
    const int32_t n = (int32_t)(x * 1.44269504f - 0.5f);
    const float r = (x - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f; /* x - n ln 2, in two parts */
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const uint32_t bits = (uint32_t)(n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

void fti_softmax_f32(uint8_t *arena, const fti_op *op)
{
    const float *x = (const float *)(const void *)(arena + op->x), beta = *(const float *)op->weight;
    float *y = (float *)(void *)(arena + op->y);
    for (uint32_t row = 0; row < op->xh; row++, x += op->xc, y += op->xc) {
        float most = x[0], sum = 0.0f;
        for (uint32_t i = 1; i < op->xc; i++)
            most = x[i] > most ? x[i] : most;
        for (uint32_t i = 0; i < op->xc; i++)
            sum += y[i] = exp_below((x[i] - most) * beta);
        for (uint32_t i = 0; i < op->xc; i++)
            y[i] = y[i] / sum;
    }
}
