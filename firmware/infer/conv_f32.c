/* Convolution and depthwise convolution in float32. Products are added one by one, kernel row by row, channel last, to
 * a sum that starts with the bias. Activation `a`: 0 none, 1 ReLU, 2 ReLU6. */
#include "clamp_f32.h"
#include "fedtiny_infer.h"
#include "window.h"

/* x (xh, xw, xc), y (yh, yw, yc), weight (yc, kh, kw, xc), bias (yc) */
void fti_conv_f32(uint8_t *arena, const fti_op *op)
{
    const float *x = (const float *)(const void *)(arena + op->x), *bias = op->bias;
    float *y = (float *)(void *)(arena + op->y);
    for (uint32_t row = 0; row < op->yh; row++) {
        const fti_span rows = fti_window(row, op->sh, op->top, op->kh, op->dh, op->xh);
        for (uint32_t col = 0; col < op->yw; col++) {
            const fti_span cols = fti_window(col, op->sw, op->left, op->kw, op->dw, op->xw);
            for (uint32_t o = 0; o < op->yc; o++, y++) {
                const float *w = (const float *)op->weight + (uint32_t)op->kh * op->kw * op->xc * o;
                float sum = bias ? bias[o] : 0.0f;
                for (uint32_t i = rows.from; i < rows.to; i++)
                    for (uint32_t j = cols.from; j < cols.to; j++) {
                        const uint32_t line = (uint32_t)(rows.at + (int32_t)(i * op->dh)) * op->xw;
                        const float *from = x + (line + (uint32_t)(cols.at + (int32_t)(j * op->dw))) * op->xc;
                        const float *with = w + (i * op->kw + j) * op->xc;
                        for (uint32_t c = 0; c < op->xc; c++)
                            sum += from[c] * with[c];
                    }
                *y = fti_active(sum, op->a);
            }
        }
    }
}

/* x (xh, xw, xc), y (yh, yw, yc) with yc a multiple of xc, weight (kh, kw, yc), bias (yc) */
void fti_depthwise_f32(uint8_t *arena, const fti_op *op)
{
    const float *x = (const float *)(const void *)(arena + op->x), *w = op->weight, *bias = op->bias;
    float *y = (float *)(void *)(arena + op->y);
    const uint32_t many = op->yc / op->xc;
    for (uint32_t row = 0; row < op->yh; row++) {
        const fti_span rows = fti_window(row, op->sh, op->top, op->kh, op->dh, op->xh);
        for (uint32_t col = 0; col < op->yw; col++) {
            const fti_span cols = fti_window(col, op->sw, op->left, op->kw, op->dw, op->xw);
            for (uint32_t c = 0; c < op->yc; c++, y++) {
                float sum = bias ? bias[c] : 0.0f;
                for (uint32_t i = rows.from; i < rows.to; i++)
                    for (uint32_t j = cols.from; j < cols.to; j++) {
                        const uint32_t line = (uint32_t)(rows.at + (int32_t)(i * op->dh)) * op->xw;
                        sum += x[(line + (uint32_t)(cols.at + (int32_t)(j * op->dw))) * op->xc + c / many] *
                               w[(i * op->kw + j) * op->yc + c];
                    }
                *y = fti_active(sum, op->a);
            }
        }
    }
}

/* xh rows of xc to xh rows of yc, weight (yc, xc), bias (yc) */
void fti_dense_f32(uint8_t *arena, const fti_op *op)
{
    const float *x = (const float *)(const void *)(arena + op->x), *bias = op->bias;
    float *y = (float *)(void *)(arena + op->y);
    for (uint32_t row = 0; row < op->xh; row++, x += op->xc) {
        const float *w = op->weight;
        for (uint32_t o = 0; o < op->yc; o++, y++) {
            float sum = bias ? bias[o] : 0.0f;
            for (uint32_t c = 0; c < op->xc; c++)
                sum += x[c] * *w++;
            *y = fti_active(sum, op->a);
        }
    }
}
