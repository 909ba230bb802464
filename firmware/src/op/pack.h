/* A channel of activations in fewer bytes: half precision, or 8 bits between the channel's smallest and largest value.
 *
 * Bits are made by integer arithmetic and one rounding, so every target packs the same bytes. */
#ifndef FT_PACK_H
#define FT_PACK_H

#include <stdint.h>

enum { FT_PACK_F16 = 1, FT_PACK_INT8 = 2 };

uint32_t ft_pack_floats(uint32_t form, uint32_t channels, uint32_t pixels); /* floats that one packed sample takes */
void ft_pack_channel(void *packed, uint32_t form, uint32_t channels, uint32_t pixels, uint32_t channel, const float *x);
void ft_pack_restore(float *x, const void *packed, uint32_t form, uint32_t channels, uint32_t pixels, uint32_t channel);

#endif
