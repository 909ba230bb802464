/* Fully connected by pruned weights (sparse_s8.h): xh rows of xc to xh rows of yc; the rest as in sparse_conv_s8.c. */
#include "fedtiny_infer.h"
#include "scale.h"

void fti_sparse_dense_s8(uint8_t *arena, const fti_op *op)
{
    const int8_t *x = (const int8_t *)(arena + op->x);
    const int32_t *bias = op->bias;
    int8_t *y = (int8_t *)(arena + op->y);
    for (uint32_t row = 0; row < op->xh; row++, x += op->xc) {
        const uint8_t *stream = op->weight;
        for (uint32_t c = 0; c < op->yc; c++) {
            const int8_t *at = x;
            int32_t sum = bias[c];
            const uint32_t n = stream[0] | (uint32_t)stream[1] << 8;
            stream += 2;
            for (uint32_t i = 0; i < n; i++, stream += 2) {
                at += stream[0];
                sum += *at * (int8_t)stream[1];
            }
            sum = fti_scale_once(sum, op->multiplier[c], op->shift[c]) + op->y_zero;
            *y++ = (int8_t)fti_clamp(sum, op->low, op->high);
        }
    }
}
