/* Pools over windows kh x kw, what lies outside of the map left out. x (xh, xw, xc), y (yh, yw, xc); one scale. */
#include "fedtiny_infer.h"
#include "scale.h"
#include "window.h"

void fti_average_pool_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    int8_t *y = (int8_t *)(arena + op->y);
    for (uint32_t row = 0; row < op->yh; row++) {
        const fti_span rows = fti_window(row, op->sh, op->top, op->kh, 1, op->xh);
        for (uint32_t col = 0; col < op->yw; col++) {
            const fti_span cols = fti_window(col, op->sw, op->left, op->kw, 1, op->xw);
            const int32_t count = (int32_t)((rows.to - rows.from) * (cols.to - cols.from));
            for (uint32_t c = 0; c < op->xc; c++, y++) {
                int32_t sum = 0;
                for (uint32_t i = rows.from; i < rows.to; i++)
                    for (uint32_t j = cols.from; j < cols.to; j++)
                        sum += x[((uint32_t)(rows.at + (int32_t)i) * op->xw + (uint32_t)(cols.at + (int32_t)j)) * op->xc + c];
                if (count > 0)
                    sum = (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
                *y = (int8_t)fti_clamp(sum, op->low, op->high);
            }
        }
    }
}

void fti_max_pool_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    int8_t *y = (int8_t *)(arena + op->y);
    for (uint32_t row = 0; row < op->yh; row++) {
        const fti_span rows = fti_window(row, op->sh, op->top, op->kh, 1, op->xh);
        for (uint32_t col = 0; col < op->yw; col++) {
            const fti_span cols = fti_window(col, op->sw, op->left, op->kw, 1, op->xw);
            for (uint32_t c = 0; c < op->xc; c++, y++) {
                int32_t most = -128;
                for (uint32_t i = rows.from; i < rows.to; i++)
                    for (uint32_t j = cols.from; j < cols.to; j++) {
                        const uint32_t line = (uint32_t)(rows.at + (int32_t)i) * op->xw;
                        const int32_t here = x[(line + (uint32_t)(cols.at + (int32_t)j)) * op->xc + c];
                        most = here > most ? here : most;
                    }
                *y = (int8_t)fti_clamp(most, op->low, op->high);
            }
        }
    }
}
