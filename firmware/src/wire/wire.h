/* The parts of a node's end. Each file does one thing to the ft_wire that the caller owns:
 * frame.c seals and opens frames; handshake.c makes sessions; task.c takes tasks; transfer.c moves blocks; wire.c decides what is
 * sent when. */
#ifndef FT_WIRE_H
#define FT_WIRE_H

#include "fedtiny_wire.h"

enum { FT_FRAME_HEADER = 8, FT_FRAME_TAG = 16, FT_FRAME_CRC = 4 };
enum { FT_FRAME_INVITE = 1, FT_FRAME_HELLO, FT_FRAME_WELCOME, FT_FRAME_READY, FT_FRAME_REFUSE, FT_FRAME_ANNOUNCE, FT_FRAME_ENROL,
       FT_FRAME_ENROLLED, FT_FRAME_TASK = 16, FT_FRAME_REPLY, FT_FRAME_REQUEST, FT_FRAME_DATA, FT_FRAME_ACK, FT_FRAME_LOG,
       FT_FRAME_BYE };
enum { FT_PROFILE_PLAIN, FT_PROFILE_PSK, FT_PROFILE_PSK_FS };
enum { FT_REASON_VERSION = 1, FT_REASON_INCOMPAT, FT_REASON_PROFILE, FT_REASON_KEY, FT_REASON_NOT_ENROLLED };

/* What waits to be sent: bits of ft_wire.wants, the lowest first. */
enum { FT_WANTS_HELLO = 1, FT_WANTS_REFUSE = 2, FT_WANTS_ENROLLED = 4, FT_WANTS_READY = 8, FT_WANTS_ACK = 16,
       FT_WANTS_REPLY = 32, FT_WANTS_ANNOUNCE = 64 };

typedef struct {
    uint8_t type;
    const uint8_t *payload;
    uint32_t count;
} ft_frame;

/* frame.c */
/* What a frame says, if it is the host's and genuine; its bytes are decrypted in place. Counters are taken note of. */
bool ft_frame_open(ft_wire *wire, uint8_t *bytes, uint32_t count, ft_frame *frame);
uint8_t *ft_frame_payload(ft_wire *wire); /* where the next frame's payload is written: session.max_payload bytes, or 1024 */
void ft_frame_seal(ft_wire *wire, uint8_t type, uint32_t count); /* makes it what is sent next */

/* handshake.c */
void ft_handshake_invite(ft_wire *wire, const uint8_t *payload, uint32_t count);
void ft_handshake_welcome(ft_wire *wire, const uint8_t *payload, uint32_t count);
void ft_handshake_enrol(ft_wire *wire, const uint8_t *payload, uint32_t count);
uint32_t ft_handshake_hello(const ft_wire *wire, uint8_t *out);
uint32_t ft_handshake_refuse(const ft_wire *wire, uint8_t *out);
uint32_t ft_handshake_enrolled(const ft_wire *wire, uint8_t *out);
uint32_t ft_handshake_announce(const ft_wire *wire, uint8_t *out);

/* record.c */
bool ft_record_start(ft_wire *wire); /* reads, or makes, and counts the boot */
bool ft_record_enrol(ft_wire *wire, const void *id, uint32_t id_bytes, const uint8_t *key); /* key NULL: none */
bool ft_record_forget(ft_wire *wire);
uint32_t ft_record_boots(const ft_wire *wire);
const uint8_t *ft_record_id(const ft_wire *wire, uint32_t *bytes);
const uint8_t *ft_record_key(const ft_wire *wire); /* NULL: none */

/* transfer.c */
void ft_fetch_start(ft_wire *wire); /* goes on with the task's objects from what is there */
void ft_fetch_data(ft_wire *wire, const uint8_t *payload, uint32_t count);
void ft_fetch_tick(ft_wire *wire, uint32_t now_ms);
uint32_t ft_fetch_request(ft_wire *wire, uint8_t *out);
void ft_queue_request(ft_wire *wire, const uint8_t *payload, uint32_t count);
bool ft_queue_empty(const ft_wire *wire);
uint32_t ft_queue_data(ft_wire *wire, uint8_t *out); /* DATA of the next block */

/* object.c */
void ft_object_hash(uint8_t hash[FT_WIRE_HASH], uint8_t kind, const uint8_t *bytes, uint32_t count);
void ft_object_name(ft_wire_source *source); /* fills in ref: length and hash */
void ft_object_read(const ft_wire_source *source, uint32_t from, uint8_t *out, uint32_t count);

/* number.c */
uint32_t ft_number_words(const ft_wire_reply *reply, char words[FT_WIRE_PROBLEM]); /* the problem with its numbers; returns bytes */

/* task.c */
void ft_task_come(ft_wire *wire, const uint8_t *payload, uint32_t count);
void ft_task_complete(ft_wire *wire); /* all objects are there, or cannot be */
void ft_task_do(ft_wire *wire);
uint32_t ft_task_reply(const ft_wire *wire, uint8_t *out);
uint32_t ft_task_ack(const ft_wire *wire, uint8_t *out);

#endif
