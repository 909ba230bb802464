/* The messages of fedtiny.cddl: a table of fields and one decoder for those that come, a writer for those that go.
 *
 * A message that came is an array of items, one per field; a field's position is its key. The decoder takes the one encoding
 * (RFC 8949, 4.2.1): unknown or doubled keys, other types, longer integers than need be, bytes behind the message are refused.
 * Text is not checked to be UTF-8: a node only compares it. */
#ifndef FT_MESSAGE_H
#define FT_MESSAGE_H

#include "fedtiny_wire.h"

typedef struct {
    uint32_t number;   /* integers: the value, of 64 bits the lower half; others: bytes at `at` */
    uint32_t high;     /* of 64 bits the upper half */
    const uint8_t *at; /* bytes, text; lists: their CBOR with its head. NULL: the field is not there */
} ft_item;

enum { FT_UINT = 1, FT_ONE_OF, FT_OCTETS, FT_TEXT, FT_NUMBERS, FT_OBJECTS, FT_MAY = 16 }; /* FT_MAY: may be missing */

typedef struct {
    uint8_t type;
    uint8_t low, high; /* of a value or a length; uint: high = bits; numbers: high = head of its floats */
} ft_field;

typedef struct {
    const ft_field *fields;
    uint32_t count;
} ft_schema;

enum { FT_ITEMS = 9 }; /* fields of the longest message that a node gets */

enum { FT_INVITE_LOWEST, FT_INVITE_HIGHEST, FT_INVITE_NONCE, FT_INVITE_PROFILE, FT_INVITE_INCOMPAT, FT_INVITE_COMPAT,
       FT_INVITE_PAYLOAD, FT_INVITE_DEVICE, FT_INVITE_PUBLIC };
enum { FT_HELLO_VERSION, FT_HELLO_NONCE, FT_HELLO_DEVICE, FT_HELLO_PROFILE, FT_HELLO_INCOMPAT, FT_HELLO_COMPAT,
       FT_HELLO_PAYLOAD, FT_HELLO_OBJECT, FT_HELLO_BOOT, FT_HELLO_RESET, FT_HELLO_BOARD, FT_HELLO_FIRMWARE, FT_HELLO_OPERATORS,
       FT_HELLO_ARENA, FT_HELLO_FREE, FT_HELLO_PUBLIC };
enum { FT_WELCOME_SESSION };
enum { FT_REFUSE_REASON, FT_REFUSE_DEVICE, FT_REFUSE_LOWEST, FT_REFUSE_HIGHEST, FT_REFUSE_UNKNOWN };
enum { FT_ANNOUNCE_DEVICE, FT_ANNOUNCE_BOARD, FT_ANNOUNCE_BOOT };
enum { FT_ENROL_DEVICE, FT_ENROL_KEY };
enum { FT_TASK_NUMBER, FT_TASK_RUN, FT_TASK_ROUND, FT_TASK_ATTEMPT, FT_TASK_KIND, FT_TASK_PARAMETERS, FT_TASK_OBJECTS };
enum { FT_REPLY_NUMBER, FT_REPLY_RUN, FT_REPLY_ROUND, FT_REPLY_ATTEMPT, FT_REPLY_STATUS, FT_REPLY_RESULTS, FT_REPLY_OBJECTS,
       FT_REPLY_PROBLEM };
enum { FT_REQUEST_HASH, FT_REQUEST_FIRST, FT_REQUEST_WANTED };
enum { FT_ACK_NUMBER };

extern const ft_schema ft_invite, ft_hello, ft_welcome, ft_refuse, ft_announce, ft_enrol, ft_enrolled, ft_task, ft_reply,
    ft_request, ft_ack;

/* items: as many as the schema has fields; they point into bytes. */
bool ft_message_decode(const ft_schema *schema, const uint8_t *bytes, uint32_t count, ft_item *items);
/* Writes the fields in the order of their keys; out has room for what they point to and 10 bytes each. */
typedef struct {
    uint8_t *out, *at; /* out: the map's head: fewer than 24 fields */
    uint8_t key;       /* of the next field */
} ft_writer;

ft_writer ft_write_map(uint8_t *out);
void ft_write_number(ft_writer *w, uint32_t low);
void ft_write_long(ft_writer *w, uint32_t low, uint32_t high);
void ft_write_string(ft_writer *w, uint8_t major, const void *at, uint32_t count); /* of FT_CBOR_BYTES or FT_CBOR_TEXT */
void ft_write_raw(ft_writer *w, const void *cbor, uint32_t count); /* no field if count is 0 */
void ft_write_refs(ft_writer *w, const ft_wire_source *sources, uint32_t count); /* a list of objects, none if count is 0 */
static inline uint32_t ft_write_end(const ft_writer *w) { return (uint32_t)(w->at - w->out); }

uint32_t ft_message_get_refs(const ft_item *item, ft_wire_ref refs[FT_WIRE_OBJECTS]); /* of a decoded message */

#endif
