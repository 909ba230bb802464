/* Damaged and forged frames against ft_frame_open: none may be taken.
 *
 *   damage flips COUNT SEED     frames of a plain and of a protected session, damaged on the line as serial links damage them
 *   damage tags COUNT SEED      frames of a session with a tag that somebody guessed
 * Prints how many were tried, how many of them still decoded to a frame, and how many were taken. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../firmware/src/blob.h"
#include "../../../firmware/src/wire/cobs.h"
#include "../../../firmware/src/wire/wire.h"
#include "monocypher.h"

enum { MOST_PAYLOAD = 64, ROOM = 256, TASK = 16 };

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state * 0x2545F4914F6CDD1Dull) >> 33) % below;
}

static void fill(uint8_t *at, uint32_t count)
{
    while (count--)
        *at++ = (uint8_t)draw(256);
}

/* As a host writes it; returns its bytes. */
static uint32_t make(const ft_wire_session *s, uint8_t *frame, uint32_t counter)
{
    uint32_t count = draw(MOST_PAYLOAD);
    uint8_t *payload = frame + FT_FRAME_HEADER, nonce[12] = {0};
    const uint8_t header[] = {(uint8_t)(0x11 | (s->open ? 0 : 2)), (uint8_t)(TASK + draw(4)), (uint8_t)s->number, (uint8_t)(s->number >> 8),
                              (uint8_t)counter, (uint8_t)(counter >> 8), (uint8_t)(counter >> 16), (uint8_t)(counter >> 24)};
    memcpy(frame, header, sizeof header);
    memcpy(nonce, header, sizeof header);
    fill(payload, count);
    if (s->open) {
        uint32_t crc = ~ft_blob_crc(0xFFFFFFFFu, frame, FT_FRAME_HEADER + count);
        for (int i = 0; i < 4; i++)
            payload[count + (uint32_t)i] = (uint8_t)(crc >> 8 * i);
        return FT_FRAME_HEADER + count + FT_FRAME_CRC;
    }
    crypto_aead_ctx ctx;
    crypto_aead_init_ietf(&ctx, s->keys + FT_WIRE_KEY, nonce);
    crypto_aead_write(&ctx, payload, payload + count, header, sizeof header, payload, count);
    return FT_FRAME_HEADER + count + FT_FRAME_TAG;
}

/* What serial lines do: flipped bits, bursts, lost bytes, doubled bytes, the end of one frame behind the start of another. */
static uint32_t damage(uint8_t *line, uint32_t count, const uint8_t *other, uint32_t others)
{
    uint32_t at = draw(count), n = 1 + draw(4);
    switch (draw(5)) {
    case 0:
        for (; n; n--)
            line[draw(count)] ^= (uint8_t)(1u << draw(8));
        break;
    case 1:
        for (n *= 4; n && at < count; n--)
            line[at++] = (uint8_t)draw(256);
        break;
    case 2:
        n = n < count - at ? n : count - at;
        memmove(line + at, line + at + n, count - at - n);
        count -= n;
        break;
    case 3:
        n = n < count - at ? n : count - at;
        memmove(line + at + n, line + at, count - at);
        count += n;
        break;
    default:
        n = draw(others);
        memcpy(line + at, other + n, others - n);
        count = at + others - n;
    }
    return count;
}

/* Taken though it is not what was sent. The window is wide open: only tag, CRC and header stand in the way. */
static int taken(ft_wire *wire, uint8_t *frame, uint32_t count)
{
    ft_frame found;
    wire->session.heard = false;
    memset(wire->session.seen, 0, sizeof wire->session.seen);
    return count && ft_frame_open(wire, frame, count, &found);
}

int main(int argc, char **argv)
{
    static ft_wire wire;
    unsigned long count = argc == 4 ? strtoul(argv[2], 0, 10) : 0, frames = 0, wrong = 0, genuine = 0;
    int tags = argc == 4 && strcmp(argv[1], "tags") == 0;
    if (!count)
        return 2;
    state = strtoull(argv[3], 0, 10) * 0x9E3779B97F4A7C15ull + 1;
    wire.session.running = true;
    wire.session.number = 0x1234;
    wire.session.max_payload = FT_WIRE_PAYLOAD;
    for (unsigned long i = 0; i < count; i++) {
        uint8_t frame[ROOM], second[ROOM], line[4 * ROOM], other[2 * ROOM];
        if (i % 1000 == 0)
            fill(wire.session.keys, sizeof wire.session.keys);
        wire.session.open = !tags && i % 2;
        uint32_t size = make(&wire.session, frame, (uint32_t)i);
        if (tags) {
            fill(frame + size - FT_FRAME_TAG, FT_FRAME_TAG);
            frames++;
            wrong += (unsigned long)taken(&wire, frame, size);
            continue;
        }
        uint32_t others = ft_cobs_encode(other, second, make(&wire.session, second, (uint32_t)i + 1));
        uint32_t bytes = damage(line, ft_cobs_encode(line, frame, size), other, others);
        for (uint32_t start = 0, end; start < bytes; start = end + 1) { /* a zero on the line ends a frame there */
            for (end = start; end < bytes && line[end]; end++)
                ;
            uint32_t got = ft_cobs_decode(line + start, end - start);
            bool same = (got == size && memcmp(line + start, frame, size) == 0);
            uint32_t second_size = ft_cobs_decode(other, others);
            same |= got == second_size && memcmp(line + start, other, got) == 0;
            others = ft_cobs_encode(other, second, second_size);
            frames += got >= FT_FRAME_HEADER + FT_FRAME_CRC && !same;
            genuine += same;
            wrong += (unsigned long)(!same && taken(&wire, line + start, got));
        }
    }
    uint8_t frame[ROOM];
    uint32_t size = make(&wire.session, frame, 7);
    printf("%lu tried, %lu decoded, %lu taken, %lu whole, genuine %d\n", count, frames, wrong, genuine, taken(&wire, frame, size));
    return 0;
}
