/* Moves of four-dimensional blocks: slices of a concatenation, the inside of a padded map, transposition, constants.
 * weight: 13 words: the block's four sizes, its four steps in x, its four steps in y, a flag for `fill`; steps in elements.
 * With bias, x is that constant in place of the arena's. With fill, `a` elements of y from the tensor's start (x2) on become
 * x2_zero (int8) or 0 first. */
#include "fedtiny_infer.h"
#include "scale.h"

void fti_move_s8(uint8_t *arena, const fti_op *op)
{
    const int32_t *n = op->weight, *from = n + 4, *to = n + 8;
    const int8_t *x = op->bias ? op->bias : (const int8_t *)(arena + op->x);
    int8_t *y = (int8_t *)(arena + op->y);
    if (n[12])
        for (int32_t i = 0; i < op->a; i++)
            ((int8_t *)arena + op->x2)[i] = (int8_t)op->x2_zero;
    for (int32_t i = 0; i < n[0]; i++)
        for (int32_t j = 0; j < n[1]; j++)
            for (int32_t k = 0; k < n[2]; k++) {
                const int8_t *a = x + i * from[0] + j * from[1] + k * from[2];
                int8_t *b = y + i * to[0] + j * to[1] + k * to[2];
                for (int32_t l = 0; l < n[3]; l++, a += from[3], b += to[3])
                    *b = *a;
            }
}

void fti_move_f32(uint8_t *arena, const fti_op *op)
{
    const int32_t *n = op->weight, *from = n + 4, *to = n + 8;
    const float *x = op->bias ? op->bias : (const float *)(const void *)(arena + op->x);
    float *y = (float *)(void *)(arena + op->y);
    if (n[12])
        for (int32_t i = 0; i < op->a; i++)
            ((float *)(void *)(arena + op->x2))[i] = 0.0f;
    for (int32_t i = 0; i < n[0]; i++)
        for (int32_t j = 0; j < n[1]; j++)
            for (int32_t k = 0; k < n[2]; k++) {
                const float *a = x + i * from[0] + j * from[1] + k * from[2];
                float *b = y + i * to[0] + j * to[1] + k * to[2];
                for (int32_t l = 0; l < n[3]; l++, a += from[3], b += to[3])
                    *b = *a;
            }
}
