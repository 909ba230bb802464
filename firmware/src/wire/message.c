#include "message.h"

#include <string.h>

#include "cbor.h"

enum { KINDS_OF_OBJECTS = 10 };

#define FIELDS(...) {(const ft_field[]){__VA_ARGS__}, sizeof((const ft_field[]){__VA_ARGS__}) / sizeof(ft_field)}
#define U8 {FT_UINT, 0, 8}
#define U16 {FT_UINT, 0, 16}
#define U32 {FT_UINT, 0, 32}
#define U64 {FT_UINT, 0, 64}
#define BYTES(n) {FT_OCTETS, n, n}
#define DEVICE {FT_TEXT, 1, 31}
#define BOARD {FT_TEXT, 0, 31}
#define PROFILE {FT_ONE_OF, 0, 2}

const ft_schema ft_invite = FIELDS(U8, U8, BYTES(16), PROFILE, U32, U32, U16, {FT_TEXT | FT_MAY, 1, 31}, {FT_OCTETS | FT_MAY, 32, 32});
const ft_schema ft_hello = FIELDS(U8, BYTES(16), DEVICE, PROFILE, U32, U32, U16, U32, U32, U8, BOARD, BYTES(8), U32, U32, U32,
                                  {FT_OCTETS | FT_MAY, 32, 32});
const ft_schema ft_welcome = FIELDS(U16);
const ft_schema ft_refuse = FIELDS({FT_ONE_OF, 1, 6}, DEVICE, {FT_UINT | FT_MAY, 0, 8}, {FT_UINT | FT_MAY, 0, 8}, {FT_UINT | FT_MAY, 0, 32});
const ft_schema ft_announce = FIELDS(DEVICE, BOARD, U32);
const ft_schema ft_enrol = FIELDS(DEVICE, BYTES(32));
const ft_schema ft_enrolled = FIELDS(DEVICE, BYTES(8));
const ft_schema ft_task = FIELDS(U32, BYTES(8), U32, U8, {FT_ONE_OF, 1, 11}, {FT_NUMBERS | FT_MAY, 0, FT_CBOR_F32}, {FT_OBJECTS | FT_MAY, 0, 0});
const ft_schema ft_reply = FIELDS(U32, BYTES(8), U32, U8, U8, {FT_NUMBERS | FT_MAY, 0, FT_CBOR_F64}, {FT_OBJECTS | FT_MAY, 0, 0}, {FT_TEXT | FT_MAY, 0, 95});
const ft_schema ft_request = FIELDS(BYTES(16), U32, U64);
const ft_schema ft_ack = FIELDS(U32);

/* Integers of 64 bits with sign and floats of the one width. */
static bool numbers(ft_cbor *in, uint8_t floats)
{
    uint32_t count;
    ft_cbor_head head;
    if (!ft_cbor_expect(in, FT_CBOR_LIST, &count))
        return false;
    for (; count; count--)
        if (!ft_cbor_next(in, &head)
            || (head.major == FT_CBOR_NINT ? head.high >> 31 : head.major != FT_CBOR_UINT && head.lead != floats))
            return false;
    return true;
}

/* How many; 0: they are malformed. */
static uint32_t objects(ft_cbor *in, ft_wire_ref *refs)
{
    uint32_t count, three, kind, bytes;
    if (!ft_cbor_expect(in, FT_CBOR_LIST, &count) || count > FT_WIRE_OBJECTS)
        return 0;
    for (uint32_t i = 0; i < count; i++, refs++) {
        if (!ft_cbor_expect(in, FT_CBOR_LIST, &three) || three != 3 || !ft_cbor_expect(in, FT_CBOR_UINT, &kind)
            || kind - 1 >= KINDS_OF_OBJECTS || !ft_cbor_expect(in, FT_CBOR_BYTES, &bytes) || bytes != FT_WIRE_HASH
            || in->end - in->at < FT_WIRE_HASH)
            return 0;
        refs->kind = (uint8_t)kind;
        memcpy(refs->hash, in->at, FT_WIRE_HASH);
        in->at += FT_WIRE_HASH;
        if (!ft_cbor_expect(in, FT_CBOR_UINT, &refs->length))
            return 0;
    }
    return count;
}

static bool get(ft_cbor *in, const ft_field *field, ft_item *item)
{
    static const uint8_t majors[] = {[FT_UINT] = FT_CBOR_UINT, [FT_ONE_OF] = FT_CBOR_UINT, [FT_OCTETS] = FT_CBOR_BYTES, [FT_TEXT] = FT_CBOR_TEXT};
    ft_wire_ref refs[FT_WIRE_OBJECTS];
    ft_cbor_head head;
    uint8_t type = field->type & (FT_MAY - 1);
    item->at = in->at;
    if (type >= FT_NUMBERS) {
        bool good = type == FT_NUMBERS ? numbers(in, field->high) : objects(in, refs) > 0;
        item->number = (uint32_t)(in->at - item->at);
        return good;
    }
    if (!ft_cbor_next(in, &head) || head.major != majors[type])
        return false;
    item->number = head.low;
    item->high = head.high;
    item->at = in->at;
    if (type == FT_UINT)
        return field->high > 32 || (!head.high && (field->high == 32 || head.low >> field->high == 0));
    if (head.high || head.low < field->low || head.low > field->high)
        return false;
    if (type == FT_ONE_OF)
        return true;
    if (head.low > (uint32_t)(in->end - in->at))
        return false;
    in->at += head.low;
    return true;
}

bool ft_message_decode(const ft_schema *schema, const uint8_t *bytes, uint32_t count, ft_item *items)
{
    ft_cbor in = {bytes, bytes + count};
    uint32_t pairs, key, next = 0;
    memset(items, 0, schema->count * sizeof *items);
    if (!ft_cbor_expect(&in, FT_CBOR_MAP, &pairs))
        return false;
    for (; pairs; pairs--, next = key + 1)
        if (!ft_cbor_expect(&in, FT_CBOR_UINT, &key) || key < next || key >= schema->count
            || !get(&in, &schema->fields[key], &items[key]))
            return false;
    for (key = 0; key < schema->count; key++)
        if (!items[key].at && !(schema->fields[key].type & FT_MAY))
            return false;
    return in.at == in.end;
}

ft_writer ft_write_map(uint8_t *out)
{
    *out = FT_CBOR_MAP << 5;
    return (ft_writer){out, out + 1, 0};
}

static void begin(ft_writer *w, uint8_t major, uint32_t low, uint32_t high)
{
    ++*w->out;
    w->at = ft_cbor_put(w->at, FT_CBOR_UINT, w->key++, 0);
    w->at = ft_cbor_put(w->at, major, low, high);
}

static void copy(ft_writer *w, const void *from, uint32_t count)
{
    memcpy(w->at, from, count);
    w->at += count;
}

void ft_write_long(ft_writer *w, uint32_t low, uint32_t high) { begin(w, FT_CBOR_UINT, low, high); }
void ft_write_number(ft_writer *w, uint32_t low) { begin(w, FT_CBOR_UINT, low, 0); }

void ft_write_string(ft_writer *w, uint8_t major, const void *at, uint32_t count)
{
    begin(w, major, count, 0);
    copy(w, at, count);
}

void ft_write_raw(ft_writer *w, const void *cbor, uint32_t count)
{
    if (!count) {
        w->key++;
        return;
    }
    ++*w->out;
    w->at = ft_cbor_put(w->at, FT_CBOR_UINT, w->key++, 0);
    copy(w, cbor, count);
}

void ft_write_refs(ft_writer *w, const ft_wire_source *sources, uint32_t count)
{
    if (!count) {
        w->key++;
        return;
    }
    begin(w, FT_CBOR_LIST, count, 0);
    for (; count; count--, sources++) {
        w->at = ft_cbor_put(w->at, FT_CBOR_LIST, 3, 0);
        w->at = ft_cbor_put(w->at, FT_CBOR_UINT, sources->ref.kind, 0);
        w->at = ft_cbor_put(w->at, FT_CBOR_BYTES, FT_WIRE_HASH, 0);
        copy(w, sources->ref.hash, FT_WIRE_HASH);
        w->at = ft_cbor_put(w->at, FT_CBOR_UINT, sources->ref.length, 0);
    }
}

uint32_t ft_message_get_refs(const ft_item *item, ft_wire_ref refs[FT_WIRE_OBJECTS])
{
    if (!item->at)
        return 0;
    ft_cbor in = {item->at, item->at + item->number};
    return objects(&in, refs);
}
