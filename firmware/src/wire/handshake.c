#include "../bytes.h"
#include "blake2b.h"
#include "cbor.h"
#include "message.h"
#include "monocypher.h"
#include "wire.h"

enum { VERSION = 1, MAC = 16, HASH = 32, SMALLEST_PAYLOAD = 64, NONCE = 16, FIRMWARE = 8, CHECK = 8 };
enum { OPERATORS = 0x7FE }; /* a bit per kind of BLOB.md: this core knows all of them */
enum { HELLO_BYTES = 256, LONGEST_INVITE = 160 }; /* at least */

static void write_text(ft_writer *w, const char *text) { ft_write_string(w, FT_CBOR_TEXT, text, (uint32_t)strlen(text)); }
static void write_id(ft_writer *w, const ft_wire *wire) { write_text(w, ft_wire_device(wire)); }

static void add_text(ft_blake2b *b, const char *text) { ft_blake2b_add(b, text, (uint32_t)strlen(text)); }

/* B(bytes, key, text). The caller gives b: there is one on the stack at a time. */
static void digest(ft_blake2b *b, uint8_t *out, uint32_t bytes, const uint8_t key[FT_WIRE_KEY], const char *text)
{
    ft_blake2b_start(b, bytes, key, FT_WIRE_KEY);
    add_text(b, text);
    ft_blake2b_end(b, out);
}

/* B(32, no key, INVITE payload || HELLO payload) */
static void transcript(uint8_t out[HASH], const uint8_t *invite, uint32_t invite_bytes, const uint8_t *hello, uint32_t hello_bytes)
{
    ft_blake2b b;
    ft_blake2b_start(&b, HASH, 0, 0);
    ft_blake2b_add(&b, invite, invite_bytes);
    ft_blake2b_add(&b, hello, hello_bytes);
    ft_blake2b_end(&b, out);
}

/* B(16, k_hs, word || T1 or T2 || message), k_hs = B(32, psk, "fedtiny handshake 1") */
static void mac(ft_blake2b *b, uint8_t out[MAC], const uint8_t *psk, const char *word, const uint8_t before[HASH],
                const uint8_t *message, uint32_t count)
{
    uint8_t key[HASH];
    digest(b, key, HASH, psk, "fedtiny handshake 1");
    ft_blake2b_start(b, MAC, key, HASH);
    add_text(b, word);
    ft_blake2b_add(b, before, HASH);
    ft_blake2b_add(b, message, count);
    ft_blake2b_end(b, out);
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
    uint32_t profile = m[FT_INVITE_PROFILE].number;
    if (m[FT_INVITE_LOWEST].number > VERSION || m[FT_INVITE_HIGHEST].number < VERSION)
        return FT_REASON_VERSION;
    if (m[FT_INVITE_INCOMPAT].number)
        return FT_REASON_INCOMPAT;
    if (profile == FT_PROFILE_PLAIN)
        return key && !wire->facts->plain ? FT_REASON_PROFILE : 0;
    if (!key)
        return FT_REASON_NOT_ENROLLED;
    bool exchanges = wire->facts->exchange && wire->port->random && m[FT_INVITE_PUBLIC].at;
    return profile == FT_PROFILE_PSK_FS && !exchanges ? FT_REASON_PROFILE : 0;
}

void ft_handshake_invite(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_item m[FT_ITEMS];
    ft_wire_handshake *h = &wire->hands;
    uint8_t t1[HASH], *hello = wire->received + FT_WIRE_STUFFED - HELLO_BYTES; /* behind the INVITE, which is shorter */
    uint32_t id_bytes;
    const uint8_t *device = ft_record_id(wire, &id_bytes);
    if (count > LONGEST_INVITE || !ft_message_decode(&ft_invite, payload, count, m)
        || m[FT_INVITE_PAYLOAD].number < SMALLEST_PAYLOAD) {
        wire->counts.dropped++;
        return;
    }
    if (m[FT_INVITE_DEVICE].at
        && (m[FT_INVITE_DEVICE].number != id_bytes || memcmp(m[FT_INVITE_DEVICE].at, device, id_bytes) != 0))
        return;
    wire->announcing = false;
    transcript(t1, payload, count, 0, 0);
    if (h->offered && memcmp(t1, h->t1, HASH) == 0) {
        wire->wants |= FT_WANTS_HELLO;
        return;
    }
    uint8_t reason = objection(wire, m);
    if (reason) {
        refuse(wire, reason, m[FT_INVITE_INCOMPAT].number);
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
    transcript(h->t2, payload, count, hello, ft_handshake_hello(wire, hello));
    wire->wants |= FT_WANTS_HELLO;
}

/* The same bytes each time for one INVITE. */
uint32_t ft_handshake_hello(const ft_wire *wire, uint8_t *out)
{
    const ft_wire_handshake *h = &wire->hands;
    const ft_wire_facts *facts = wire->facts;
    uint8_t nonce[NONCE], public_key[FT_WIRE_KEY];
    ft_blake2b b;
    uint32_t boots = ft_record_boots(wire), count;
    ft_store_u32(nonce, boots);
    ft_store_u32(nonce + 4, h->count);
    memcpy(nonce + 8, h->random, sizeof h->random);
    ft_writer w = ft_write_map(out);
    ft_write_number(&w, VERSION);
    ft_write_string(&w, FT_CBOR_BYTES, nonce, sizeof nonce);
    write_id(&w, wire);
    ft_write_number(&w, h->profile);
    ft_write_number(&w, 0); /* incompat and compat bits */
    ft_write_number(&w, 0);
    ft_write_number(&w, h->max_payload);
    ft_write_number(&w, h->arena_bytes); /* the largest object */
    ft_write_number(&w, boots);
    ft_write_number(&w, facts->reset_reason);
    write_text(&w, facts->board);
    ft_write_string(&w, FT_CBOR_BYTES, facts->firmware, FIRMWARE);
    ft_write_number(&w, OPERATORS);
    ft_write_number(&w, h->arena_bytes);
    ft_write_number(&w, h->free_bytes);
    if (h->profile == FT_PROFILE_PSK_FS) {
        facts->exchange->public_key(public_key, h->secret);
        ft_write_string(&w, FT_CBOR_BYTES, public_key, sizeof public_key);
    }
    count = ft_write_end(&w);
    if (h->profile == FT_PROFILE_PLAIN)
        return count;
    mac(&b, out + count, ft_record_key(wire), "hello", h->t1, out, count);
    return count + MAC;
}

/* B(64, psk, "fedtiny session 1" || T2 || shared) */
static bool derive(ft_blake2b *b, ft_wire *wire)
{
    const ft_wire_handshake *h = &wire->hands;
    uint8_t shared[FT_WIRE_KEY];
    bool exchanges = h->profile == FT_PROFILE_PSK_FS;
    if (exchanges && !wire->facts->exchange->shared(shared, h->secret, h->theirs))
        return false;
    ft_blake2b_start(b, sizeof wire->session.keys, ft_record_key(wire), FT_WIRE_KEY);
    add_text(b, "fedtiny session 1");
    ft_blake2b_add(b, h->t2, HASH);
    if (exchanges)
        ft_blake2b_add(b, shared, sizeof shared);
    ft_blake2b_end(b, wire->session.keys);
    crypto_wipe(shared, sizeof shared);
    return true;
}

/* Did the host, and nobody else, write this? */
static bool is_genuine(ft_blake2b *b, const ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    uint8_t expected[MAC];
    mac(b, expected, ft_record_key(wire), "welcome", wire->hands.t2, payload, count);
    return crypto_verify16(expected, payload + count) == 0;
}

static bool begin_session(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_item m[1];
    ft_blake2b b;
    ft_wire_handshake *h = &wire->hands;
    ft_wire_session *s = &wire->session;
    bool plain = h->profile == FT_PROFILE_PLAIN;
    uint32_t body = plain ? count : count - MAC;
    if (!h->offered || body > count || !ft_message_decode(&ft_welcome, payload, body, m) || m[FT_WELCOME_SESSION].number == 0
        || (!plain && !is_genuine(&b, wire, payload, body)))
        return false;
    if (h->used) /* these keys were in use: never again from counter 0 */
        return s->running && m[FT_WELCOME_SESSION].number == s->number;
    memset(s, 0, sizeof *s);
    if (!plain && !derive(&b, wire))
        return false;
    s->running = s->fresh = h->used = true;
    s->open = plain;
    s->number = (uint16_t)m[FT_WELCOME_SESSION].number;
    s->max_payload = h->max_payload;
    crypto_wipe(h->secret, sizeof h->secret);
    wire->wants &= (uint8_t)~(FT_WANTS_ACK | FT_WANTS_REPLY);
    wire->fetch.waiting = false;
    memset(&wire->queue, 0, sizeof wire->queue);
    return true;
}

void ft_handshake_welcome(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    if (begin_session(wire, payload, count))
        wire->wants |= FT_WANTS_READY;
    else
        wire->counts.dropped++;
}

void ft_handshake_enrol(ft_wire *wire, const uint8_t *payload, uint32_t count)
{
    ft_item m[2];
    const uint8_t *key = ft_record_key(wire);
    if (!ft_message_decode(&ft_enrol, payload, count, m))
        wire->counts.dropped++;
    else if (key && crypto_verify32(key, m[FT_ENROL_KEY].at) != 0)
        refuse(wire, FT_REASON_KEY, 0);
    else if (key || ft_record_enrol(wire, m[FT_ENROL_DEVICE].at, m[FT_ENROL_DEVICE].number, m[FT_ENROL_KEY].at))
        wire->wants |= FT_WANTS_ENROLLED; /* one that has the key says so again, under its own id */
}

uint32_t ft_handshake_enrolled(const ft_wire *wire, uint8_t *out)
{
    uint8_t check[CHECK];
    ft_blake2b b;
    digest(&b, check, CHECK, ft_record_key(wire), "fedtiny key check");
    ft_writer w = ft_write_map(out);
    write_id(&w, wire);
    ft_write_string(&w, FT_CBOR_BYTES, check, sizeof check);
    return ft_write_end(&w);
}

uint32_t ft_handshake_refuse(const ft_wire *wire, uint8_t *out)
{
    ft_writer w = ft_write_map(out);
    ft_write_number(&w, wire->refusal);
    write_id(&w, wire);
    if (wire->refusal == FT_REASON_VERSION) {
        ft_write_number(&w, VERSION); /* lowest and highest */
        ft_write_number(&w, VERSION);
    } else if (wire->refusal == FT_REASON_INCOMPAT) {
        w.key = FT_REFUSE_UNKNOWN;
        ft_write_number(&w, wire->unknown_bits);
    }
    return ft_write_end(&w);
}

uint32_t ft_handshake_announce(const ft_wire *wire, uint8_t *out)
{
    ft_writer w = ft_write_map(out);
    write_id(&w, wire);
    write_text(&w, wire->facts->board);
    ft_write_number(&w, ft_record_boots(wire));
    return ft_write_end(&w);
}
