/* Masks as bytes: a bitmap, byte deltas or Golomb-Rice (BLOB.md, "Masks"), read one live element at a time. */
#ifndef FT_MASK_H
#define FT_MASK_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const uint8_t *bytes;
    uint32_t length; /* bytes */
    uint32_t elements;
    uint32_t encoding; /* FT_MASK_*, with the Rice parameter */
    uint32_t at;       /* next byte of deltas, next bit of the others */
    uint32_t next;     /* element that a gap of 0 means */
} ft_mask;

ft_mask ft_mask_open(uint32_t encoding, const uint8_t *bytes, uint32_t length, uint32_t elements);
bool ft_mask_next(ft_mask *mask, uint32_t *index); /* ascending; false at the end. Only for a mask that ft_mask_check passed */
bool ft_mask_check(ft_mask mask, uint32_t *live);  /* well-formed? counts the live elements */

#endif
