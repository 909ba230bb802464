/* The messages of fedtiny.cddl: a table of fields for each, one encoder and one decoder for all.
 *
 * A message is an array of items, one per field; a field's position is its key. The decoder takes exactly what the encoder
 * would write (RFC 8949, 4.2.1): unknown or doubled keys, other types, longer integers than need be, bytes behind the message
 * are refused. */
#ifndef FT_MESSAGE_H
#define FT_MESSAGE_H

#include "fedtiny_wire.h"

typedef struct {
    uint64_t number;   /* integers: the value; others: bytes at `at` */
    const uint8_t *at; /* bytes, text; lists: their CBOR with its head */
    bool there;
} ft_item;

typedef struct {
    uint8_t type;      /* private to message.c */
    uint8_t low, high; /* of a value or a length; uint: bits */
} ft_field;

typedef struct {
    const ft_field *fields;
    uint32_t count;
} ft_schema;

enum { FT_ITEMS = 16 }; /* fields of the longest message */

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

/* items: FT_ITEMS of them; they point into bytes. */
bool ft_message_decode(const ft_schema *schema, const uint8_t *bytes, uint32_t count, ft_item *items);
/* Returns the bytes written, 0 if they are more than capacity or an item is outside of its type. */
uint32_t ft_message_encode(const ft_schema *schema, const ft_item *items, uint8_t *out, uint32_t capacity);

/* A list of objects, as the encoder takes it; out has FT_REFS_BYTES. */
enum { FT_REFS_BYTES = 1 + FT_WIRE_OBJECTS * (1 + 1 + 1 + FT_WIRE_HASH + 5) };
uint32_t ft_message_put_refs(uint8_t *out, const ft_wire_ref *refs, uint32_t count);
uint32_t ft_message_get_refs(const ft_item *item, ft_wire_ref refs[FT_WIRE_OBJECTS]); /* of a decoded message */

#endif
