#include "../op/pack.h"
#include "blake2b.h"
#include "wire.h"

enum { HEAD = 4, CHUNK = 64 };

void ft_object_hash(uint8_t hash[FT_WIRE_HASH], uint8_t kind, const uint8_t *bytes, uint32_t count)
{
    ft_blake2b b;
    ft_blake2b_start(&b, FT_WIRE_HASH, 0, 0);
    ft_blake2b_add(&b, &kind, 1);
    ft_blake2b_add(&b, bytes, count);
    ft_blake2b_end(&b, hash);
}

static uint8_t byte_at(const ft_wire_source *source, uint32_t at)
{
    const uint8_t *bytes = source->at;
    if (source->form == FT_WIRE_BYTES)
        return bytes[at];
    if (at < HEAD)
        return at == 0 && source->form == FT_WIRE_F16;
    at -= HEAD;
    if (source->form == FT_WIRE_F32) /* every target is little-endian */
        return bytes[at];
    uint16_t half;
    ft_pack_channel(&half, FT_PACK_F16, 1, 1, 0, (const float *)source->at + at / 2);
    return (uint8_t)(at % 2 ? half >> 8 : half & 255);
}

void ft_object_read(const ft_wire_source *source, uint32_t from, uint8_t *out, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        out[i] = byte_at(source, from + i);
}

void ft_object_name(ft_wire_source *source)
{
    ft_blake2b b;
    uint8_t chunk[CHUNK];
    ft_wire_ref *ref = &source->ref;
    ref->length = source->form == FT_WIRE_BYTES ? source->count : HEAD + source->count * (source->form == FT_WIRE_F16 ? 2 : 4);
    ft_blake2b_start(&b, FT_WIRE_HASH, 0, 0);
    ft_blake2b_add(&b, &ref->kind, 1);
    for (uint32_t at = 0; at < ref->length; at += CHUNK) {
        uint32_t count = ref->length - at < CHUNK ? ref->length - at : CHUNK;
        ft_object_read(source, at, chunk, count);
        ft_blake2b_add(&b, chunk, count);
    }
    ft_blake2b_end(&b, ref->hash);
}
