#include "message.h"

#include "zcbor_decode.h"
#include "zcbor_encode.h"

enum { UINT = 1, ONE_OF, OCTETS, TEXT, NUMBERS, OBJECTS, MAY = 16 };
enum { STATES = 5 }; /* of zcbor: the running one, a map, a list, an object, and what they share */

#define FIELDS(...) {(const ft_field[]){__VA_ARGS__}, sizeof((const ft_field[]){__VA_ARGS__}) / sizeof(ft_field)}
#define U8 {UINT, 0, 8}
#define U16 {UINT, 0, 16}
#define U32 {UINT, 0, 32}
#define U64 {UINT, 0, 64}
#define BYTES(n) {OCTETS, n, n}
#define DEVICE {TEXT, 1, 31}
#define BOARD {TEXT, 0, 31}
#define PROFILE {ONE_OF, 0, 2}

const ft_schema ft_invite = FIELDS(U8, U8, BYTES(16), PROFILE, U32, U32, U16, {TEXT | MAY, 1, 31}, {OCTETS | MAY, 32, 32});
const ft_schema ft_hello = FIELDS(U8, BYTES(16), DEVICE, PROFILE, U32, U32, U16, U32, U32, U8, BOARD, BYTES(8), U32, U32, U32,
                                  {OCTETS | MAY, 32, 32});
const ft_schema ft_welcome = FIELDS(U16);
const ft_schema ft_refuse = FIELDS({ONE_OF, 1, 6}, DEVICE, {UINT | MAY, 0, 8}, {UINT | MAY, 0, 8}, {UINT | MAY, 0, 32});
const ft_schema ft_announce = FIELDS(DEVICE, BOARD, U32);
const ft_schema ft_enrol = FIELDS(DEVICE, BYTES(32));
const ft_schema ft_enrolled = FIELDS(DEVICE, BYTES(8));
const ft_schema ft_task = FIELDS(U32, BYTES(8), U32, U8, {ONE_OF, 1, 11}, {NUMBERS | MAY, 0, 4}, {OBJECTS | MAY, 0, 0});
const ft_schema ft_reply = FIELDS(U32, BYTES(8), U32, U8, U8, {NUMBERS | MAY, 0, 8}, {OBJECTS | MAY, 0, 0}, {TEXT | MAY, 0, 95});
const ft_schema ft_request = FIELDS(BYTES(16), U32, U64);
const ft_schema ft_ack = FIELDS(U32);

/* Well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool is_text(const uint8_t *p, const uint8_t *end)
{
    while (p < end) {
        uint32_t lead = *p++, more = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        if (lead >= 0x80 && (lead < 0xC2 || lead > 0xF4))
            return false;
        uint32_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80, high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        for (; more; more--, low = 0x80, high = 0xBF)
            if (p == end || *p < low || *p++ > high)
                return false;
    }
    return true;
}

static bool within(const ft_field *field, uint64_t number)
{
    uint8_t type = field->type & (MAY - 1);
    if (type == UINT)
        return field->high == 64 || number >> field->high == 0;
    return number >= field->low && number <= field->high;
}

/* Integers of up to 64 bits with sign, floats of the one width. */
static bool numbers(zcbor_state_t *z, uint32_t float_bytes)
{
    uint64_t integer;
    int64_t negative;
    float f32;
    double f64;
    if (!zcbor_list_start_decode(z))
        return false;
    while (!zcbor_array_at_end(z)) {
        if (zcbor_uint64_decode(z, &integer) || zcbor_int64_decode(z, &negative))
            continue;
        if (!(float_bytes == sizeof f32 ? zcbor_float32_decode(z, &f32) : zcbor_float64_decode(z, &f64)))
            return false;
    }
    return zcbor_list_end_decode(z);
}

static bool object(zcbor_state_t *z, ft_wire_ref *ref)
{
    uint32_t kind;
    struct zcbor_string hash;
    if (!zcbor_list_start_decode(z) || !zcbor_uint32_decode(z, &kind) || kind < 1 || kind > 10 || !zcbor_bstr_decode(z, &hash)
        || hash.len != FT_WIRE_HASH || !zcbor_uint32_decode(z, &ref->length) || !zcbor_list_end_decode(z))
        return false;
    ref->kind = (uint8_t)kind;
    memcpy(ref->hash, hash.value, FT_WIRE_HASH);
    return true;
}

static uint32_t objects(zcbor_state_t *z, ft_wire_ref *refs)
{
    uint32_t count = 0;
    if (!zcbor_list_start_decode(z))
        return 0;
    while (!zcbor_array_at_end(z))
        if (count == FT_WIRE_OBJECTS || !object(z, &refs[count++]))
            return 0;
    return zcbor_list_end_decode(z) ? count : 0;
}

static bool get(zcbor_state_t *z, const ft_field *field, ft_item *item)
{
    struct zcbor_string string;
    ft_wire_ref refs[FT_WIRE_OBJECTS];
    item->there = true;
    item->at = z->payload;
    switch (field->type & (MAY - 1)) {
    case UINT:
    case ONE_OF:
        return zcbor_uint64_decode(z, &item->number) && within(field, item->number);
    case OCTETS:
        if (!zcbor_bstr_decode(z, &string))
            return false;
        break;
    case TEXT:
        if (!zcbor_tstr_decode(z, &string) || !is_text(string.value, string.value + string.len))
            return false;
        break;
    default:
        if (!((field->type & (MAY - 1)) == NUMBERS ? numbers(z, field->high) : objects(z, refs) > 0))
            return false;
        item->number = (uint64_t)(z->payload - item->at);
        return true;
    }
    item->at = string.value;
    item->number = string.len;
    return within(field, item->number);
}

bool ft_message_decode(const ft_schema *schema, const uint8_t *bytes, uint32_t count, ft_item *items)
{
    zcbor_state_t z[STATES];
    uint32_t key, next = 0;
    zcbor_new_decode_state(z, STATES, bytes, count, 1, 0, 0);
    memset(items, 0, FT_ITEMS * sizeof *items);
    if (!zcbor_map_start_decode(z))
        return false;
    while (!zcbor_array_at_end(z)) {
        if (!zcbor_uint32_decode(z, &key) || key < next || key >= schema->count || !get(z, &schema->fields[key], &items[key]))
            return false;
        next = key + 1;
    }
    for (key = 0; key < schema->count; key++)
        if (!items[key].there && !(schema->fields[key].type & MAY))
            return false;
    return zcbor_map_end_decode(z) && z->payload == bytes + count;
}

/* CBOR that is there already. */
static bool put_raw(zcbor_state_t *z, const ft_item *item)
{
    if (item->number > (uint64_t)(z->payload_end - z->payload))
        return false;
    memcpy(z->payload_mut, item->at, (size_t)item->number);
    z->payload_mut += item->number;
    z->elem_count++;
    return true;
}

static bool put(zcbor_state_t *z, const ft_field *field, const ft_item *item)
{
    uint8_t type = field->type & (MAY - 1);
    struct zcbor_string string = {item->at, (size_t)item->number};
    if (type == NUMBERS || type == OBJECTS)
        return put_raw(z, item);
    if (!within(field, item->number))
        return false;
    return type == OCTETS ? zcbor_bstr_encode(z, &string)
           : type == TEXT ? zcbor_tstr_encode(z, &string)
                          : zcbor_uint64_put(z, item->number);
}

uint32_t ft_message_encode(const ft_schema *schema, const ft_item *items, uint8_t *out, uint32_t capacity)
{
    zcbor_state_t z[STATES];
    zcbor_new_encode_state(z, STATES, out, capacity, 1);
    if (!zcbor_map_start_encode(z, FT_ITEMS))
        return 0;
    for (uint32_t key = 0; key < schema->count; key++)
        if (items[key].there && !(zcbor_uint32_put(z, key) && put(z, &schema->fields[key], &items[key])))
            return 0;
    return zcbor_map_end_encode(z, FT_ITEMS) ? (uint32_t)(z->payload - out) : 0;
}

uint32_t ft_message_put_refs(uint8_t *out, const ft_wire_ref *refs, uint32_t count)
{
    zcbor_state_t z[STATES];
    zcbor_new_encode_state(z, STATES, out, FT_REFS_BYTES, 1);
    zcbor_list_start_encode(z, FT_WIRE_OBJECTS);
    for (uint32_t i = 0; i < count; i++) {
        zcbor_list_start_encode(z, 3);
        zcbor_uint32_put(z, refs[i].kind);
        zcbor_bstr_encode_ptr(z, (const char *)refs[i].hash, FT_WIRE_HASH);
        zcbor_uint32_put(z, refs[i].length);
        zcbor_list_end_encode(z, 3);
    }
    zcbor_list_end_encode(z, FT_WIRE_OBJECTS);
    return (uint32_t)(z->payload - out);
}

uint32_t ft_message_get_refs(const ft_item *item, ft_wire_ref refs[FT_WIRE_OBJECTS])
{
    zcbor_state_t z[STATES];
    zcbor_new_decode_state(z, STATES, item->at, (size_t)item->number, 1, 0, 0);
    return item->there ? objects(z, refs) : 0;
}
