#include "blake2b.h"

#include <string.h>

#include "monocypher.h"

enum { BLOCK = 128, ROUNDS = 12 };

static const uint64_t iv[8] = {0x6A09E667F3BCC908u, 0xBB67AE8584CAA73Bu, 0x3C6EF372FE94F82Bu, 0xA54FF53A5F1D36F1u,
                               0x510E527FADE682D1u, 0x9B05688C2B3E6C1Fu, 0x1F83D9ABFB41BD6Bu, 0x5BE0CD19137E2179u};

/* A nibble for each word, the first in the lowest. */
static const uint64_t sigma[10] = {0xFEDCBA9876543210u, 0x357B20C16DF984AEu, 0x491763EADF250C8Bu, 0x8F04A562EBCD1397u,
                                   0xD386CB1EFA427509u, 0x91EF57D438B0A6C2u, 0xB8293670A4DEF15Cu, 0xA2684F05931CE7BDu,
                                   0x5A417D2C803B9EF6u, 0x0DC3E9BF5167482Au};

/* To the right by 1 to 63: in halves, which are what a 32-bit processor has. */
static uint64_t turn(uint64_t x, uint32_t by)
{
    uint32_t low = (uint32_t)(by & 32 ? x >> 32 : x), high = (uint32_t)(by & 32 ? x : x >> 32);
    by &= 31;
    return (uint64_t)(high >> by | low << 1 << (31 - by)) << 32 | (low >> by | high << 1 << (31 - by));
}

static uint64_t word(const uint8_t *p)
{
    uint64_t w; /* every target is little-endian */
    memcpy(&w, p, sizeof w);
    return w;
}

/* RFC 7693's G: four times the same step, between a, b, d and between c, d, b. */
static void mix(uint64_t *a, uint64_t *b, uint64_t *c, uint64_t *d, uint64_t x, uint64_t y)
{
    static const uint8_t turns[] = {32, 24, 16, 63};
    for (uint32_t i = 0; i < sizeof turns; i++, x = i == 2 ? y : 0) {
        uint64_t *sum = i % 2 ? c : a, *with = i % 2 ? d : b, *turned = i % 2 ? b : d;
        *sum += *with + x;
        *turned = turn(*turned ^ *sum, turns[i]);
    }
}

static void compress(ft_blake2b *b, uint32_t count, uint64_t last)
{
    uint64_t v[16];
    b->hashed += count;
    memcpy(v, b->h, sizeof b->h);
    memcpy(v + 8, iv, sizeof iv);
    v[12] ^= b->hashed;
    v[14] ^= last;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint64_t order = sigma[round % 10];
        for (uint32_t i = 0; i < 8; i++, order >>= 8) {
            uint32_t side = i / 4; /* columns, then diagonals */
            mix(v + i % 4, v + 4 + (i + side) % 4, v + 8 + (i + 2 * side) % 4, v + 12 + (i + 3 * side) % 4,
                word(b->block + 8 * (order & 15)), word(b->block + 8 * (order >> 4 & 15)));
        }
    }
    for (int i = 0; i < 8; i++)
        b->h[i] ^= v[i] ^ v[i + 8];
    b->held = 0;
}

void ft_blake2b_start(ft_blake2b *b, uint32_t bytes, const uint8_t *key, uint32_t key_bytes)
{
    memset(b, 0, sizeof *b);
    memcpy(b->h, iv, sizeof iv);
    b->h[0] ^= 0x01010000u ^ key_bytes << 8 ^ bytes;
    b->bytes = (uint8_t)bytes;
    if (!key_bytes)
        return;
    memcpy(b->block, key, key_bytes);
    b->held = BLOCK;
}

void ft_blake2b_add(ft_blake2b *b, const void *data, uint32_t count)
{
    for (const uint8_t *p = data; count--;) {
        if (b->held == BLOCK) /* only now is it known not to be the last */
            compress(b, BLOCK, 0);
        b->block[b->held++] = *p++;
    }
}

void ft_blake2b_end(ft_blake2b *b, uint8_t *digest)
{
    memset(b->block + b->held, 0, BLOCK - b->held);
    compress(b, b->held, ~(uint64_t)0);
    memcpy(digest, b->h, b->bytes);
    crypto_wipe(b, sizeof *b);
}
