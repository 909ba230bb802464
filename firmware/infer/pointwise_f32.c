/* Float32, element by element, and what reduces: one addition after the other. Activation `a` where there is one. */
#include "clamp_f32.h"
#include "fedtiny_infer.h"
#include "window.h"

/* y[i] = x[i] + x2[i], `b` elements; y may be either */
void fti_add_f32(uint8_t *arena, const fti_op *op)
{
    const float *x = (const float *)(const void *)(arena + op->x), *x2 = (const float *)(const void *)(arena + op->x2);
    float *y = (float *)(void *)(arena + op->y);
    for (int32_t i = 0; i < op->b; i++)
        y[i] = fti_active(x[i] + x2[i], op->a);
}

/* `b` elements; y may be x */
void fti_clamp_f32(uint8_t *arena, const fti_op *op)
{
    const float *x = (const float *)(const void *)(arena + op->x);
    float *y = (float *)(void *)(arena + op->y);
    for (int32_t i = 0; i < op->b; i++)
        y[i] = fti_active(x[i], op->a);
}

/* x (xh, xw, xc) to y (xh, xc): the sum over the middle axis divided by its size */
void fti_mean_f32(uint8_t *arena, const fti_op *op)
{
    const float *x = (const float *)(const void *)(arena + op->x);
    float *y = (float *)(void *)(arena + op->y);
    for (uint32_t row = 0; row < op->xh; row++, x += op->xw * op->xc)
        for (uint32_t c = 0; c < op->xc; c++) {
            float sum = 0.0f;
            for (uint32_t i = 0; i < op->xw; i++)
                sum += x[i * op->xc + c];
            *y++ = sum / (float)op->xw;
        }
}

/* Pools over windows kh x kw, what lies outside of the map left out. x (xh, xw, xc), y (yh, yw, xc). */
void fti_average_pool_f32(uint8_t *arena, const fti_op *op)
{
    const float *x = (const float *)(const void *)(arena + op->x);
    float *y = (float *)(void *)(arena + op->y);
    for (uint32_t row = 0; row < op->yh; row++) {
        const fti_span rows = fti_window(row, op->sh, op->top, op->kh, 1, op->xh);
        for (uint32_t col = 0; col < op->yw; col++) {
            const fti_span cols = fti_window(col, op->sw, op->left, op->kw, 1, op->xw);
            const uint32_t count = (rows.to - rows.from) * (cols.to - cols.from);
            for (uint32_t c = 0; c < op->xc; c++) {
                float sum = 0.0f;
                for (uint32_t i = rows.from; i < rows.to; i++)
                    for (uint32_t j = cols.from; j < cols.to; j++)
                        sum += x[((uint32_t)(rows.at + (int32_t)i) * op->xw + (uint32_t)(cols.at + (int32_t)j)) * op->xc + c];
                *y++ = fti_active(count > 0 ? sum / (float)count : 0.0f, op->a);
            }
        }
    }
}

void fti_max_pool_f32(uint8_t *arena, const fti_op *op)
{
    const float *x = (const float *)(const void *)(arena + op->x);
    float *y = (float *)(void *)(arena + op->y);
    for (uint32_t row = 0; row < op->yh; row++) {
        const fti_span rows = fti_window(row, op->sh, op->top, op->kh, 1, op->xh);
        for (uint32_t col = 0; col < op->yw; col++) {
            const fti_span cols = fti_window(col, op->sw, op->left, op->kw, 1, op->xw);
            for (uint32_t c = 0; c < op->xc; c++) {
                float most = -3.402823466e38f;
                for (uint32_t i = rows.from; i < rows.to; i++)
                    for (uint32_t j = cols.from; j < cols.to; j++) {
                        const uint32_t line = (uint32_t)(rows.at + (int32_t)i) * op->xw;
                        const float here = x[(line + (uint32_t)(cols.at + (int32_t)j)) * op->xc + c];
                        most = here > most ? here : most;
                    }
                *y++ = fti_active(most, op->a);
            }
        }
    }
}
