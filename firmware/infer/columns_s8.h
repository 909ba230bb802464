/* What convolution and fully connected layers are made of: columns of samples, widened to 16 bits with their zero point
 * taken off, against weights. columns_s8.c is portable C, columns_s8_m4.c with columns_s8_m4.S is for Cortex-M with the DSP
 * extension: the same bits.
 *
 * Weights lie in pairs of output channels, depth padded with 0 to a multiple of 4: a quad of the first channel, a quad
 * of the second, the next quad of the first. A quad w0..w3 is stored as w0, w2, w1, w3, so that sign-extending every
 * other byte gives pairs of neighbours. An odd last channel is paired with zeros. */
#ifndef FTI_COLUMNS_S8_H
#define FTI_COLUMNS_S8_H

#include <stdint.h>

#include "fedtiny_infer.h"

/* `rows` pieces of n samples, `step` apart, one after the other, less their zero point. */
void fti_widen_s8(int16_t *to, const int8_t *from, uint32_t rows, uint32_t n, uint32_t step, int32_t zero);

/* Every output channel of two columns: y0[c] and y1[c] = clamp(scale_c(bias_c + w_c . column) + y_zero). */
void fti_columns_s8(int8_t *y0, int8_t *y1, const int16_t *x0, const int16_t *x1, uint32_t quads, const fti_op *op);
/* One column of a fully connected layer, whose results are rounded once (fti_scale_once). */
void fti_column_s8(int8_t *y, const int16_t *x, uint32_t quads, const fti_op *op);

#endif
