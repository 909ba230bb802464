/* columns_s8.c for Cortex-M with the DSP extension: fti_columns_s8 and fti_widen_s8 are in columns_s8_m4.S. */
#include <stddef.h>

#include "columns_s8.h"
#include "scale.h"

/* columns_s8_m4.S reads fti_op at these offsets. */
typedef char fti_op_is_as_assembled
    [offsetof(fti_op, weight) == 4 && offsetof(fti_op, bias) == 8 && offsetof(fti_op, multiplier) == 12 &&
             offsetof(fti_op, shift) == 16 && offsetof(fti_op, yc) == 46 && offsetof(fti_op, y_zero) == 64 &&
             offsetof(fti_op, low) == 68 && offsetof(fti_op, high) == 72
         ? 1
         : -1];

const int8_t *fti_dot_s8(int32_t sums[2], const int8_t *w, const int16_t *x, uint32_t quads);

void fti_column_s8(int8_t *y, const int16_t *x, uint32_t quads, const fti_op *op)
{
    const int8_t *w = op->weight;
    const int32_t *bias = op->bias;
    for (uint32_t c = 0; c < op->yc; c += 2) {
        int32_t sums[2] = {bias ? bias[c] : 0, bias && c + 1 < op->yc ? bias[c + 1] : 0};
        w = fti_dot_s8(sums, w, x, quads);
        for (uint32_t i = 0; i < 2 && c + i < op->yc; i++) {
            const int32_t scaled = fti_scale_once(sums[i], op->multiplier[c + i], op->shift[c + i]);
            y[c + i] = (int8_t)fti_clamp(scaled + op->y_zero, op->low, op->high);
        }
    }
}
