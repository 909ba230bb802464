/* Little-endian loads and stores: bytes are never cast to structs, so alignment and byte order do not matter. */
#ifndef FT_BYTES_H
#define FT_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint16_t ft_load_u16(const uint8_t *p) { return (uint16_t)(p[0] | (uint16_t)p[1] << 8); }

static inline uint32_t ft_load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void ft_store_u32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

static inline float ft_load_f32(const uint8_t *p)
{
    uint32_t bits = ft_load_u32(p);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
