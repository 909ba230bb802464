/* The C codec of messages, for a test to hold against Python's: decodes a message and writes it again from what it read. */
#include <string.h>

#include "../../../firmware/src/wire/cbor.h"
#include "../../../firmware/src/wire/message.h"

enum { MOST_FIELDS = 16 };

static void write_refs(ft_writer *w, const ft_item *item)
{
    ft_wire_ref refs[FT_WIRE_OBJECTS];
    ft_wire_source sources[FT_WIRE_OBJECTS] = {{{0, {0}, 0}, 0, 0, 0}};
    uint32_t count = ft_message_get_refs(item, refs);
    for (uint32_t i = 0; i < count; i++)
        sources[i].ref = refs[i];
    ft_write_refs(w, sources, count);
}

/* kind: position in the CDDL. Returns the bytes written to out, 0: the message is refused. */
uint32_t codec_again(uint32_t kind, const uint8_t *bytes, uint32_t count, uint8_t *out)
{
    static const ft_schema *const schemas[] = {&ft_invite, &ft_hello, &ft_welcome, &ft_refuse,  &ft_announce, &ft_enrol,
                                               &ft_enrolled, &ft_task, &ft_reply,  &ft_request, &ft_ack};
    const ft_schema *schema = schemas[kind];
    ft_item items[MOST_FIELDS];
    if (!ft_message_decode(schema, bytes, count, items))
        return 0;
    ft_writer w = ft_write_map(out);
    for (uint32_t key = 0; key < schema->count; key++) {
        const ft_item *item = &items[key];
        if (!item->at) {
            w.key++;
            continue;
        }
        switch (schema->fields[key].type & (FT_MAY - 1)) {
        case FT_OCTETS:
            ft_write_string(&w, FT_CBOR_BYTES, item->at, item->number);
            break;
        case FT_TEXT:
            ft_write_string(&w, FT_CBOR_TEXT, item->at, item->number);
            break;
        case FT_NUMBERS:
            ft_write_raw(&w, item->at, item->number);
            break;
        case FT_OBJECTS:
            write_refs(&w, item);
            break;
        default:
            ft_write_long(&w, item->number, item->high);
        }
    }
    return ft_write_end(&w);
}
