/* Pieces of memory in time: each finds the lowest offset that is free during its life. */
#ifndef FT_PLACE_H
#define FT_PLACE_H

#include <stdint.h>

/* What one or several tensors occupy in turn. Times: operator i runs forward at i, the loss at n, operator i backward at
 * 2n - i. */
typedef struct {
    uint32_t size, begin, end, at;
    uint32_t early; /* while placing: the larger goes first */
} ft_piece;

/* Sets every `at`; returns the floats that all take together, the least of several orders. */
uint32_t ft_place_pieces(ft_piece *pieces, uint32_t count);

#endif
