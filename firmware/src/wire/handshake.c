#include "../bytes.h"
#include "message.h"
#include "monocypher.h"
#include "wire.h"

enum { VERSION = 1, MAC = 16, HASH = 32, SMALLEST_PAYLOAD = 64, NONCE = 16, FIRMWARE = 8, CHECK = 8 };
enum { OPERATORS = 0x7FE }; /* a bit per kind of BLOB.md: this core knows all of them */
enum { HELLO_BYTES = 256 }; /* at least the longest */

static ft_item number(uint64_t value) { return (ft_item){value, 0, true}; }
static ft_item octets(const void *at, uint32_t count) { return (ft_item){count, at, true}; }

static ft_item id(const ft_wire *wire)
{
    uint32_t count;
    const uint8_t *at = ft_record_id(wire, &count);
    return octets(at, count);
}

static void add_text(crypto_blake2b_ctx *ctx, const char *text)
{
    crypto_blake2b_update(ctx, (const uint8_t *)text, strlen(text));
}

/* B(16, k_hs, word || transcript || message), k_hs = B(32, psk, "fedtiny handshake 1") */
static void mac(uint8_t out[MAC], const uint8_t *psk, const char *word, const uint8_t transcript[HASH], const uint8_t *message,
                uint32_t count)
{
    static const char label[] = "fedtiny handshake 1";
    crypto_blake2b_ctx ctx;
    uint8_t key[HASH];
    crypto_blake2b_keyed(key, sizeof key, psk, FT_WIRE_KEY, (const uint8_t *)label, sizeof label - 1);
    crypto_blake2b_keyed_init(&ctx, MAC, key, sizeof key);
    add_text(&ctx, word);
    crypto_blake2b_update(&ctx, transcript, HASH);
    crypto_blake2b_update(&ctx, message, count);
    crypto_blake2b_final(&ctx, out);
    crypto_wipe(key, sizeof key);
}

static void refuse(ft_wire *wire, uint8_t reason, uint32_t unknown)
{
    wire->refusal = reason;
    wire->unknown_bits = unknown;
    wire->wants |= FT_WANTS_REFUSE;
}

/* Why there will be no session on these terms; 0: there may be one. */
static uint8_t objection(const ft_wire *wire, const ft_item *m)
{
    const uint8_t *key = ft_record_key(wire);
    uint32_t profile = (uint32_t)m[FT_INVITE_PROFILE].number;
    if (m[FT_INVITE_LOWEST].number > VERSION || m[FT_INVITE_HIGHEST].number < VERSION)
        return FT_REASON_VERSION;
    if (m[FT_INVITE_INCOMPAT].number)
        return FT_REASON_INCOMPAT;
    if (profile == FT_PROFILE_PLAIN)
        return key && !wire->facts->plain ? FT_REASON_PROFILE : 0;
    if (!key)
        return FT_REASON_NOT_ENROLLED;
    bool exchanges = wire->facts->exchange && wire->port->random && m[FT_INVITE_PUBLIC].there;
    return profile == FT_PROFILE_PSK_FS && !exchanges ? FT_REASON_PROFILE : 0;
}

void ft_handshake_invite(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_item m[FT_ITEMS];
    ft_wire_handshake *h = &wire->hands;
    uint8_t t1[HASH], hello[HELLO_BYTES];
    crypto_blake2b_ctx ctx;
    uint32_t id_bytes;
    const uint8_t *device = ft_record_id(wire, &id_bytes);
    if (!ft_message_decode(&ft_invite, payload, count, m) || m[FT_INVITE_PAYLOAD].number < SMALLEST_PAYLOAD) {
        wire->counts.dropped++;
        return;
    }
    if (m[FT_INVITE_DEVICE].there
        && (m[FT_INVITE_DEVICE].number != id_bytes || memcmp(m[FT_INVITE_DEVICE].at, device, id_bytes) != 0))
        return;
    wire->announcing = false;
    crypto_blake2b(t1, HASH, payload, count);
    if (h->offered && memcmp(t1, h->t1, HASH) == 0) {
        wire->wants |= FT_WANTS_HELLO;
        return;
    }
    uint8_t reason = objection(wire, m);
    if (reason) {
        refuse(wire, reason, (uint32_t)m[FT_INVITE_INCOMPAT].number);
        return;
    }
    h->offered = true;
    h->used = false;
    h->profile = (uint8_t)m[FT_INVITE_PROFILE].number;
    h->max_payload = (uint16_t)(m[FT_INVITE_PAYLOAD].number < FT_WIRE_PAYLOAD ? m[FT_INVITE_PAYLOAD].number : FT_WIRE_PAYLOAD);
    h->count++;
    memcpy(h->t1, t1, HASH);
    memset(h->random, 0, sizeof h->random);
    if (wire->port->random)
        wire->port->random(wire->port->ctx, h->random, sizeof h->random);
    if (h->profile == FT_PROFILE_PSK_FS) {
        wire->port->random(wire->port->ctx, h->secret, sizeof h->secret);
        memcpy(h->theirs, m[FT_INVITE_PUBLIC].at, sizeof h->theirs);
    }
    wire->tasks.room(wire->tasks.ctx, &h->arena_bytes, &h->free_bytes);
    crypto_blake2b_init(&ctx, HASH);
    crypto_blake2b_update(&ctx, payload, count);
    crypto_blake2b_update(&ctx, hello, ft_handshake_hello(wire, hello));
    crypto_blake2b_final(&ctx, h->t2);
    wire->wants |= FT_WANTS_HELLO;
}

/* The same bytes each time for one INVITE. */
uint32_t ft_handshake_hello(ft_wire *wire, uint8_t *out)
{
    const ft_wire_handshake *h = &wire->hands;
    const ft_wire_facts *facts = wire->facts;
    uint8_t nonce[NONCE], public_key[FT_WIRE_KEY];
    uint32_t boots = ft_record_boots(wire), count;
    for (int i = 0; i < 4; i++) {
        nonce[i] = (uint8_t)(boots >> 8 * i);
        nonce[4 + i] = (uint8_t)(h->count >> 8 * i);
    }
    memcpy(nonce + 8, h->random, sizeof h->random);
    ft_item m[FT_ITEMS] = {
        [FT_HELLO_VERSION] = number(VERSION),
        [FT_HELLO_NONCE] = octets(nonce, sizeof nonce),
        [FT_HELLO_DEVICE] = id(wire),
        [FT_HELLO_PROFILE] = number(h->profile),
        [FT_HELLO_INCOMPAT] = number(0),
        [FT_HELLO_COMPAT] = number(0),
        [FT_HELLO_PAYLOAD] = number(h->max_payload),
        [FT_HELLO_OBJECT] = number(h->arena_bytes),
        [FT_HELLO_BOOT] = number(boots),
        [FT_HELLO_RESET] = number(facts->reset_reason),
        [FT_HELLO_BOARD] = octets(facts->board, (uint32_t)strlen(facts->board)),
        [FT_HELLO_FIRMWARE] = octets(facts->firmware, FIRMWARE),
        [FT_HELLO_OPERATORS] = number(OPERATORS),
        [FT_HELLO_ARENA] = number(h->arena_bytes),
        [FT_HELLO_FREE] = number(h->free_bytes),
    };
    if (h->profile == FT_PROFILE_PSK_FS) {
        facts->exchange->public_key(public_key, h->secret);
        m[FT_HELLO_PUBLIC] = octets(public_key, sizeof public_key);
    }
    count = ft_message_encode(&ft_hello, m, out, HELLO_BYTES - MAC);
    if (h->profile == FT_PROFILE_PLAIN)
        return count;
    mac(out + count, ft_record_key(wire), "hello", h->t1, out, count);
    return count + MAC;
}

/* B(64, psk, "fedtiny session 1" || T2 || shared) */
static bool derive(ft_wire *wire, ft_wire_session *s)
{
    const ft_wire_handshake *h = &wire->hands;
    crypto_blake2b_ctx ctx;
    uint8_t keys[2 * FT_WIRE_KEY], shared[FT_WIRE_KEY];
    crypto_blake2b_keyed_init(&ctx, sizeof keys, ft_record_key(wire), FT_WIRE_KEY);
    add_text(&ctx, "fedtiny session 1");
    crypto_blake2b_update(&ctx, h->t2, HASH);
    if (h->profile == FT_PROFILE_PSK_FS) {
        if (!wire->facts->exchange->shared(shared, h->secret, h->theirs))
            return false;
        crypto_blake2b_update(&ctx, shared, sizeof shared);
    }
    crypto_blake2b_final(&ctx, keys);
    memcpy(s->up, keys, FT_WIRE_KEY);
    memcpy(s->down, keys + FT_WIRE_KEY, FT_WIRE_KEY);
    crypto_wipe(keys, sizeof keys);
    crypto_wipe(shared, sizeof shared);
    return true;
}

void ft_handshake_welcome(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_item m[FT_ITEMS];
    ft_wire_handshake *h = &wire->hands;
    ft_wire_session *s = &wire->session;
    bool plain = h->profile == FT_PROFILE_PLAIN;
    uint32_t tail = plain ? 0 : MAC;
    uint8_t expected[MAC];
    wire->counts.dropped++; /* until it proves good */
    if (!h->offered || count < tail || !ft_message_decode(&ft_welcome, payload, count - tail, m)
        || m[FT_WELCOME_SESSION].number == 0)
        return;
    if (!plain) {
        if (!ft_record_key(wire))
            return;
        mac(expected, ft_record_key(wire), "welcome", h->t2, payload, count - tail);
        if (crypto_verify16(expected, payload + count - tail) != 0)
            return;
    }
    uint16_t session = (uint16_t)m[FT_WELCOME_SESSION].number;
    if (h->used) { /* these keys were in use: never again from counter 0 */
        if (!s->running || session != s->number)
            return;
    } else {
        ft_wire_session next = {.running = true, .open = plain, .fresh = true, .number = session, .max_payload = h->max_payload};
        if (!plain && !derive(wire, &next))
            return;
        h->used = true;
        crypto_wipe(h->secret, sizeof h->secret);
        *s = next;
        crypto_wipe(&next, sizeof next);
        wire->wants &= ~(FT_WANTS_ACK | FT_WANTS_REPLY | FT_WANTS_REQUEST);
        wire->fetch.waiting = false;
        wire->queue.bits[0] = wire->queue.bits[1] = 0;
    }
    wire->counts.dropped--;
    wire->wants |= FT_WANTS_READY;
}

void ft_handshake_enrol(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_item m[FT_ITEMS];
    uint32_t id_bytes;
    const uint8_t *key = ft_record_key(wire), *device = ft_record_id(wire, &id_bytes);
    if (!ft_message_decode(&ft_enrol, payload, count, m)) {
        wire->counts.dropped++;
        return;
    }
    const ft_item *new_id = &m[FT_ENROL_DEVICE], *new_key = &m[FT_ENROL_KEY];
    if (key && (crypto_verify32(key, new_key->at) != 0 || new_id->number != id_bytes || memcmp(new_id->at, device, id_bytes) != 0))
        refuse(wire, FT_REASON_KEY, 0);
    else if (key || ft_record_enrol(wire, new_id->at, (uint32_t)new_id->number, new_key->at))
        wire->wants |= FT_WANTS_ENROLLED;
}

uint32_t ft_handshake_enrolled(ft_wire *wire, uint8_t *out)
{
    static const char label[] = "fedtiny key check";
    uint8_t check[CHECK];
    const uint8_t *key = ft_record_key(wire);
    if (!key)
        return 0;
    crypto_blake2b_keyed(check, sizeof check, key, FT_WIRE_KEY, (const uint8_t *)label, sizeof label - 1);
    ft_item m[] = {id(wire), octets(check, sizeof check)};
    return ft_message_encode(&ft_enrolled, m, out, FT_WIRE_PAYLOAD);
}

uint32_t ft_handshake_refuse(ft_wire *wire, uint8_t *out)
{
    ft_item m[] = {number(wire->refusal), id(wire), {0, 0, false}, {0, 0, false}, {0, 0, false}};
    if (wire->refusal == FT_REASON_VERSION)
        m[FT_REFUSE_LOWEST] = m[FT_REFUSE_HIGHEST] = number(VERSION);
    else if (wire->refusal == FT_REASON_INCOMPAT)
        m[FT_REFUSE_UNKNOWN] = number(wire->unknown_bits);
    return ft_message_encode(&ft_refuse, m, out, FT_WIRE_PAYLOAD);
}

uint32_t ft_handshake_announce(ft_wire *wire, uint8_t *out)
{
    ft_item m[] = {id(wire), octets(wire->facts->board, (uint32_t)strlen(wire->facts->board)), number(ft_record_boots(wire))};
    return ft_message_encode(&ft_announce, m, out, FT_WIRE_PAYLOAD);
}
