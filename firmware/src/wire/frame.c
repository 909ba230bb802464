#include "../blob.h"
#include "../bytes.h"
#include "cobs.h"
#include "monocypher.h"
#include "wire.h"

enum { VERSION = 1, FROM_HOST = 1, PROTECTED = 2, KNOWN_FLAGS = 3, NONCE = 12, WINDOW = 64 };
enum { LEAD = 1 + FT_WIRE_FRAME / 254 + 1 }; /* room for a zero and COBS's growth in front of the frame */
#define LAST_COUNTER 0xFFFFFFFFu

typedef char the_stuffed_frame_fits[FT_WIRE_STUFFED >= LEAD + FT_WIRE_FRAME ? 1 : -1];

static uint32_t crc32(const uint8_t *bytes, uint32_t count) { return ~ft_blob_crc(0xFFFFFFFFu, bytes, count); }

static void store(uint8_t *at, uint32_t value, uint32_t bytes)
{
    for (; bytes--; value >>= 8)
        *at++ = (uint8_t)value;
}

/* The header is the nonce: key and counter make it one that never comes twice. */
static void cipher(crypto_aead_ctx *ctx, const uint8_t *key, const uint8_t *header)
{
    uint8_t nonce[NONCE] = {0};
    memcpy(nonce, header, FT_FRAME_HEADER);
    crypto_aead_init_ietf(ctx, key, nonce);
}

/* Takes each counter once, and none more than 63 below the highest (RFC 4303, section 3.4.3). */
static bool is_new(ft_wire_session *s, uint32_t counter)
{
    if (!s->seen || counter > s->highest) {
        uint32_t ahead = s->seen ? counter - s->highest : WINDOW;
        s->seen = (ahead < WINDOW ? s->seen << ahead : 0) | 1;
        s->highest = counter;
        return true;
    }
    uint32_t behind = s->highest - counter;
    if (behind >= WINDOW || s->seen >> behind & 1)
        return false;
    s->seen |= (uint64_t)1 << behind;
    return true;
}

static bool open_protected(const ft_wire_session *s, uint8_t *bytes, uint32_t count)
{
    crypto_aead_ctx ctx;
    uint8_t *payload = bytes + FT_FRAME_HEADER;
    uint32_t length = count - FT_FRAME_HEADER - FT_FRAME_TAG;
    cipher(&ctx, s->keys + FT_WIRE_KEY, bytes);
    bool genuine = crypto_aead_read(&ctx, payload, payload + length, bytes, FT_FRAME_HEADER, payload, length) == 0;
    crypto_wipe(&ctx, sizeof ctx);
    return genuine;
}

bool ft_frame_open(ft_wire *wire, uint8_t *bytes, uint32_t count, ft_frame *frame)
{
    ft_wire_session *s = &wire->session;
    if (count < FT_FRAME_HEADER + FT_FRAME_CRC || (bytes[0] & ~PROTECTED) != (VERSION << 4 | FROM_HOST))
        return false;
    bool protected = bytes[0] & PROTECTED;
    uint32_t number = ft_load_u16(bytes + 2), counter = ft_load_u32(bytes + 4);
    uint32_t tail = protected ? FT_FRAME_TAG : FT_FRAME_CRC;
    bool outside = bytes[1] == FT_FRAME_INVITE || bytes[1] == FT_FRAME_WELCOME || bytes[1] == FT_FRAME_ENROL;
    if (count < FT_FRAME_HEADER + tail || outside != (number == 0))
        return false;
    if (outside ? protected || counter : !s->running || number != s->number || protected == s->open)
        return false;
    if (protected ? !open_protected(s, bytes, count) : crc32(bytes, count - tail) != ft_load_u32(bytes + count - tail))
        return false;
    if (!outside && !is_new(s, counter))
        return false;
    *frame = (ft_frame){bytes[1], bytes + FT_FRAME_HEADER, count - FT_FRAME_HEADER - tail};
    return true;
}

uint8_t *ft_frame_payload(ft_wire *wire) { return wire->sent_bytes + LEAD + FT_FRAME_HEADER; }

void ft_frame_seal(ft_wire *wire, uint8_t type, uint32_t count)
{
    ft_wire_session *s = &wire->session;
    uint8_t *frame = wire->sent_bytes + LEAD, *payload = frame + FT_FRAME_HEADER, *out = wire->sent_bytes;
    bool inside = type == FT_FRAME_READY || type >= FT_FRAME_TASK, protected = inside && !s->open;
    frame[0] = (uint8_t)(VERSION << 4 | (protected ? PROTECTED : 0));
    frame[1] = type;
    store(frame + 2, inside ? s->number : 0, 2);
    store(frame + 4, inside ? s->sent++ : 0, 4);
    if (inside && s->sent == LAST_COUNTER) /* the next handshake gives new keys */
        s->running = false;
    if (protected) {
        crypto_aead_ctx ctx;
        cipher(&ctx, s->keys, frame);
        crypto_aead_write(&ctx, payload, payload + count, frame, FT_FRAME_HEADER, payload, count);
        crypto_wipe(&ctx, sizeof ctx);
        count += FT_FRAME_HEADER + FT_FRAME_TAG;
    } else {
        count += FT_FRAME_HEADER;
        store(frame + count, crc32(frame, count), FT_FRAME_CRC);
        count += FT_FRAME_CRC;
    }
    wire->sent_from = LEAD;
    wire->sent_to = (uint16_t)(LEAD + count);
    if (wire->facts->frames)
        return;
    wire->sent_from = 0;
    if (wire->spoke)
        wire->sent_from = 1; /* no pause before it */
    out[0] = 0;
    count = ft_cobs_encode(out + 1, frame, count);
    out[1 + count] = 0;
    wire->sent_to = (uint16_t)(count + 2);
}
