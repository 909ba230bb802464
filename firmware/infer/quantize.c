/* From scale to scale, `a` elements; y may be x where the types are the same. */
#include "fedtiny_infer.h"
#include "scale.h"

/* y = clamp(scale(x - x_zero) + y_zero) */
void fti_rescale_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    int8_t *y = (int8_t *)(arena + op->y);
    for (int32_t i = 0; i < op->a; i++) {
        const int32_t scaled = fti_scale(x[i] - op->x_zero, *op->multiplier, *op->shift);
        y[i] = (int8_t)fti_clamp(scaled + op->y_zero, op->low, op->high);
    }
}

/* y = clamp(round(x / weight[0]) + y_zero), ties away from 0; what is no number becomes y_zero */
void fti_quantize_s8(uint8_t *arena, const fti_op *op)
{
    const float *x = (const float *)(const void *)(arena + op->x), scale = *(const float *)op->weight;
    int8_t *y = (int8_t *)(arena + op->y);
    for (int32_t i = 0; i < op->a; i++) {
        const float ratio = x[i] / scale;
        int32_t nearest = 0;
        if (ratio >= 512.0f || ratio <= -512.0f)
            nearest = ratio > 0.0f ? 512 : -512;
        else if (ratio == ratio) {
            nearest = (int32_t)ratio;
            const float rest = ratio - (float)nearest; /* exact */
            nearest += rest >= 0.5f ? 1 : rest <= -0.5f ? -1 : 0;
        }
        y[i] = (int8_t)fti_clamp(nearest + op->y_zero, -128, 127);
    }
}

/* y = weight[0] * (x - x_zero) */
void fti_dequantize_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    float *y = (float *)(void *)(arena + op->y), scale = *(const float *)op->weight;
    for (int32_t i = 0; i < op->a; i++)
        y[i] = scale * (float)(x[i] - op->x_zero);
}
