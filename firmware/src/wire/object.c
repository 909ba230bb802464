#include "../op/pack.h"
#include "monocypher.h"
#include "wire.h"

enum { HEAD = 4, CHUNK = 64 };

void ft_object_hash(uint8_t hash[FT_WIRE_HASH], uint8_t kind, const uint8_t *bytes, uint32_t count)
{
    crypto_blake2b_ctx ctx;
    crypto_blake2b_init(&ctx, FT_WIRE_HASH);
    crypto_blake2b_update(&ctx, &kind, 1);
    crypto_blake2b_update(&ctx, bytes, count);
    crypto_blake2b_final(&ctx, hash);
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
    crypto_blake2b_ctx ctx;
    uint8_t chunk[CHUNK];
    ft_wire_ref *ref = &source->ref;
    ref->length = source->form == FT_WIRE_BYTES ? source->count : HEAD + source->count * (source->form == FT_WIRE_F16 ? 2 : 4);
    crypto_blake2b_init(&ctx, FT_WIRE_HASH);
    crypto_blake2b_update(&ctx, &ref->kind, 1);
    for (uint32_t at = 0; at < ref->length; at += CHUNK) {
        uint32_t count = ref->length - at < CHUNK ? ref->length - at : CHUNK;
        ft_object_read(source, at, chunk, count);
        crypto_blake2b_update(&ctx, chunk, count);
    }
    crypto_blake2b_final(&ctx, ref->hash);
}
