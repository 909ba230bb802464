#include "../blob.h"
#include "../bytes.h"
#include "cobs.h"
#include "monocypher.h"
#include "wire.h"

enum { VERSION = 1, FROM_HOST = 1, PROTECTED = 2, KNOWN_FLAGS = 3, NONCE = 12, KEY_ONCE = 32, WINDOW = 64 };
enum { LEAD = 1 + FT_WIRE_FRAME / 254 + 1 }; /* room for a zero and COBS's growth in front of the frame */
#define LAST_COUNTER 0xFFFFFFFFu

typedef char the_stuffed_frame_fits[FT_WIRE_STUFFED >= LEAD + FT_WIRE_FRAME ? 1 : -1];

static uint32_t crc32(const uint8_t *bytes, uint32_t count) { return ~ft_blob_crc(0xFFFFFFFFu, bytes, count); }

/* ChaCha20 (RFC 8439) of a payload, or with payload NULL of zeros. The header is the nonce: key and counter make it one that never
 * comes twice. */
static void cipher(uint8_t *out, const uint8_t *payload, uint32_t count, const uint8_t *key, const uint8_t *header, uint32_t block)
{
    uint8_t nonce[NONCE] = {0};
    memcpy(nonce, header, FT_FRAME_HEADER);
    crypto_chacha20_ietf(out, payload, count, key, nonce, block);
}

/* The tag of AEAD_CHACHA20_POLY1305 (RFC 8439, section 2.8) over a header and an encrypted payload. */
static void authenticate(uint8_t tag[FT_FRAME_TAG], const uint8_t *key, const uint8_t *header, uint32_t count)
{
    static const uint8_t zeros[16];
    crypto_poly1305_ctx ctx;
    uint8_t once[KEY_ONCE], lengths[16] = {FT_FRAME_HEADER};
    cipher(once, 0, sizeof once, key, header, 0);
    ft_store_u32(lengths + 8, count);
    crypto_poly1305_init(&ctx, once);
    crypto_poly1305_update(&ctx, header, FT_FRAME_HEADER);
    crypto_poly1305_update(&ctx, zeros, 16 - FT_FRAME_HEADER);
    crypto_poly1305_update(&ctx, header + FT_FRAME_HEADER, count);
    crypto_poly1305_update(&ctx, zeros, -count & 15);
    crypto_poly1305_update(&ctx, lengths, sizeof lengths);
    crypto_poly1305_final(&ctx, tag);
    crypto_wipe(once, sizeof once);
}

/* Takes each counter once, and none more than 63 below the highest (RFC 4303, section 3.4.3). */
static bool is_new(ft_wire_session *s, uint32_t counter)
{
    uint8_t *seen = &s->seen[counter / 8 % sizeof s->seen], bit = (uint8_t)(1u << counter % 8);
    if (s->heard && counter <= s->highest) {
        if (s->highest - counter >= WINDOW || *seen & bit)
            return false;
    } else {
        for (uint32_t i = 0; i < WINDOW && s->highest != counter; i++) {
            s->highest++;
            s->seen[s->highest / 8 % sizeof s->seen] &= (uint8_t)~(1u << s->highest % 8);
        }
        s->highest = counter;
    }
    s->heard = true;
    *seen |= bit;
    return true;
}

static bool open_protected(const ft_wire_session *s, uint8_t *bytes, uint32_t count)
{
    uint8_t tag[FT_FRAME_TAG], *payload = bytes + FT_FRAME_HEADER;
    const uint8_t *key = s->keys + FT_WIRE_KEY;
    count -= FT_FRAME_HEADER + FT_FRAME_TAG;
    authenticate(tag, key, bytes, count);
    if (crypto_verify16(tag, payload + count) != 0)
        return false;
    cipher(payload, payload, count, key, bytes, 1);
    return true;
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
    frame[2] = inside ? (uint8_t)s->number : 0;
    frame[3] = inside ? (uint8_t)(s->number >> 8) : 0;
    ft_store_u32(frame + 4, inside ? s->sent++ : 0);
    if (inside && s->sent == LAST_COUNTER) /* the next handshake gives new keys */
        s->running = false;
    if (protected) {
        cipher(payload, payload, count, s->keys, frame, 1);
        authenticate(payload + count, s->keys, frame, count);
        count += FT_FRAME_HEADER + FT_FRAME_TAG;
    } else {
        count += FT_FRAME_HEADER;
        ft_store_u32(frame + count, crc32(frame, count));
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
