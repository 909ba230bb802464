/* COBS (Cheshire and Baker 1999): frames without zeros, so that a zero may end each. Both work in place. */
#ifndef FT_COBS_H
#define FT_COBS_H

#include <stdint.h>

/* Bytes that `count` bytes may grow by. */
static inline uint32_t ft_cobs_overhead(uint32_t count) { return count / 254 + 1; }

/* Writes the code of in[0..count) to out; returns its bytes. in may lie in the same buffer, ft_cobs_overhead(count) or more
 * behind out. */
uint32_t ft_cobs_encode(uint8_t *out, const uint8_t *in, uint32_t count);
/* Decodes over itself; returns the frame's bytes, 0 if it is no such code. */
uint32_t ft_cobs_decode(uint8_t *bytes, uint32_t count);

#endif
