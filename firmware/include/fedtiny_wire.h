/* fedtiny's wire: a node that answers a host's tasks over anything that carries bytes (PROTOCOL.md). The second public header.
 *
 * What a port does: gives the callbacks of ft_wire_port and the facts of ft_wire_facts, one ft_wire and one ft_service (static
 * or on its stack; both start zeroed by the start calls), one piece of memory for samples, model and arena, and a main loop:
 *
 *     ft_service_start(&service, memory, memory_bytes, NULL);
 *     if (ft_wire_start(&wire, &port, &facts, ft_service_tasks(&service)) != FT_OK) ... the record cannot be stored
 *     for (;;) {
 *         ft_wire_feed(&wire, bytes, count);          what came: any pieces of a stream, or one whole frame
 *         uint32_t wait_ms = ft_wire_poll(&wire);     sends, asks again, works
 *         ... sleep until bytes come, output drains (if ft_wire_sending) or wait_ms have passed
 *     }
 *
 * All calls come from this one loop: an interrupt only fills a ring that the loop empties into ft_wire_feed. Feed before each
 * poll: a reply to what came is made in poll. A task runs inside ft_wire_poll for as long as it takes (seconds and more): what
 * the ring cannot hold meanwhile may be lost, the host repeats it. No malloc, no globals, no stdio; two nodes in one process work. */
#ifndef FEDTINY_WIRE_H
#define FEDTINY_WIRE_H

#include <stdbool.h>

#include "fedtiny.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef FT_WIRE_PAYLOAD
#define FT_WIRE_PAYLOAD 1024 /* most bytes of a frame's payload that a node takes and sends, 512 to 4096: a build's choice */
#endif

enum {
    FT_WIRE_FRAME = 8 + FT_WIRE_PAYLOAD + 16,
    FT_WIRE_STUFFED = FT_WIRE_FRAME + FT_WIRE_FRAME / 254 + 3, /* the same on a byte stream, zeros before and behind it */
    FT_WIRE_KEY = 32,
    FT_WIRE_HASH = 16,
    FT_WIRE_ID = 31,           /* most bytes of a device's id */
    FT_WIRE_OBJECTS = 4,       /* most objects of one task or reply */
    FT_WIRE_NUMBERS = 128, /* most bytes of a task's parameters, as CBOR: layers and counts of some thirty layers */
    FT_WIRE_RESULTS = 80,      /* the same of a reply's results */
    FT_WIRE_PROBLEM = 95,      /* most bytes of a reply's text */
    FT_WIRE_FOREVER = 0x7FFFFFFF
};

/* The persistent record, 72 bytes: u8 version 1; u8 flags, bit 0: there is a key; u8 bytes of the id; u8 0; u32 boot counter
 * (little-endian); u8[32] key, zeros without one; u8[32] id, then zeros. The port keeps it whole: two slots, a checksum, the
 * newer good one wins (port/record.h). */
enum { FT_WIRE_RECORD = 72 };

/* What the wire asks of the machine. */
typedef struct {
    void *ctx;
    uint32_t (*now_ms)(void *ctx); /* monotonic, wraps */
    /* A stream takes what it can now (0 to count) and is asked again; a carrier of whole frames takes all or nothing. Type of a
     * whole frame: bytes[1]; 17 is REPLY (MQTT: topic `done`). */
    size_t (*write)(void *ctx, const uint8_t *bytes, size_t count);
    void (*random)(void *ctx, uint8_t *bytes, size_t count); /* may be NULL: psk needs none, psk-fs does */
    int (*load)(void *ctx, uint8_t record[FT_WIRE_RECORD]); /* 0 = success; else there is none yet: ft_wire_start makes one */
    int (*store)(void *ctx, const uint8_t record[FT_WIRE_RECORD]); /* 0 = it will be there after a power loss */
} ft_wire_port;

/* Key exchange for the profile psk-fs, in a source file of its own: without it a build is 9 KB smaller. */
typedef struct {
    void (*public_key)(uint8_t out[FT_WIRE_KEY], const uint8_t secret[FT_WIRE_KEY]);
    bool (*shared)(uint8_t out[FT_WIRE_KEY], const uint8_t secret[FT_WIRE_KEY], const uint8_t theirs[FT_WIRE_KEY]);
} ft_wire_exchange;
extern const ft_wire_exchange ft_wire_x25519; /* src/wire/x25519.c */

/* What the node says of itself. Texts are UTF-8 and outlive the ft_wire. */
typedef struct {
    const char *device; /* id, 1 to 31 bytes, until ENROL gives another */
    const char *board;  /* up to 31 bytes */
    uint8_t firmware[8]; /* first bytes of the hash of its image, or zeros */
    uint8_t reset_reason; /* 0 unknown, 1 power, 2 pin, 3 watchdog, 4 software, 5 brown-out, 6 fault */
    bool frames;          /* the carrier keeps frames whole (MQTT); false: a byte stream */
    bool plain;           /* a node with a key agrees to the profile plain too; leave it off where anybody reaches the line */
    uint8_t window;       /* blocks asked for ahead, 1 to 32; 0: 32, or what the line carries in 0.7 s */
    uint32_t bytes_per_s; /* of the line, 0: not known */
    const ft_wire_exchange *exchange; /* &ft_wire_x25519, or NULL: no psk-fs */
} ft_wire_facts;

typedef struct {
    uint8_t kind; /* PROTOCOL.md: 1 model ... 10 scores */
    uint8_t hash[FT_WIRE_HASH];
    uint32_t length;
} ft_wire_ref;

/* An object that a task brings; what is not yet there is asked for block by block. */
typedef struct {
    ft_wire_ref ref;
    uint8_t *at;          /* where ft_wire_tasks.place put its bytes */
    uint16_t block_bytes; /* private; 0: nothing is to come */
    uint32_t base;        /* private: all blocks below are there */
} ft_wire_object;

/* A task as it came: parameters for ft_wire_numbers. */
typedef struct {
    uint32_t number, round;
    uint8_t run[8], attempt, kind, object_count, parameter_bytes;
    uint8_t parameters[FT_WIRE_NUMBERS]; /* a CBOR array */
    ft_wire_object objects[FT_WIRE_OBJECTS];
} ft_wire_task;

/* An object to send: bytes as they lie, or floats that go as 4 bytes of head and binary32s or halves. What lies there must stay
 * until the next task begins. */
enum { FT_WIRE_BYTES, FT_WIRE_F32, FT_WIRE_F16 };
typedef struct {
    ft_wire_ref ref; /* kind; the wire fills in hash and length */
    uint8_t form;    /* FT_WIRE_BYTES, … */
    const void *at;
    uint32_t count;  /* bytes, or floats */
} ft_wire_source;

typedef struct {
    uint8_t status; /* ft_status */
    uint8_t object_count;
    uint8_t result_bytes;
    uint8_t results[FT_WIRE_RESULTS]; /* CBOR, see ft_wire_add_integer */
    const char *problem;              /* what went wrong, see ft_wire_fail; NULL: nothing to say */
    uint32_t numbers[2];
    ft_wire_source objects[FT_WIRE_OBJECTS];
} ft_wire_reply;

typedef struct {
    uint32_t dropped;     /* frames, for whatever cause */
    uint32_t asked_again; /* blocks */
    uint32_t tasks, busy_ms; /* tasks done, time spent in them */
} ft_wire_counts;

/* What stands behind the wire: ft_service, or an application's own. */
typedef struct {
    void *ctx;
    /* Where object i of the task is to lie: memory that stays untouched until the task is done or another one begins; NULL:
     * nowhere, and reply's status and problem say why. *have: its bytes are there already (a model that the node runs). Called
     * when a task begins, once for each object in order. */
    uint8_t *(*place)(void *ctx, const ft_wire_task *task, uint32_t i, bool *have, ft_wire_reply *reply);
    /* Does the task and fills in the reply, which comes zeroed. boots: the boot counter. */
    void (*work)(void *ctx, const ft_wire_task *task, const ft_wire_counts *counts, uint32_t boots, ft_wire_reply *reply);
    void (*room)(void *ctx, uint32_t *arena_bytes, uint32_t *free_bytes); /* for HELLO: memory in all, and what is free of it */
} ft_wire_tasks;

/* -- The state of one node: private, visible so that the caller can own it. */

typedef struct {
    bool offered, used; /* a HELLO was made; a session came of it */
    uint8_t profile;
    uint16_t max_payload;
    uint32_t count; /* handshakes since boot */
    uint32_t arena_bytes, free_bytes;
    uint8_t random[8], t1[32], t2[32], secret[FT_WIRE_KEY], theirs[FT_WIRE_KEY];
} ft_wire_handshake;

typedef struct {
    bool running, open, fresh, heard; /* open: plain; fresh: no task came yet; heard: highest counts */
    uint16_t number, max_payload;
    uint32_t sent, highest; /* counters: of the next frame; of the latest that came */
    uint8_t seen[8];        /* the last 64: a bit at counter mod 64 */
    uint8_t keys[2 * FT_WIRE_KEY]; /* of what goes up, of what comes down */
} ft_wire_session;

enum { FT_TASK_NONE, FT_TASK_FETCHING, FT_TASK_COMPLETE, FT_TASK_DONE };
enum { FT_WIRE_SPAN = 64, FT_WIRE_QUEUE = 128 };

typedef struct { /* the download under way */
    uint8_t current;              /* whose blocks are known */
    uint8_t blocks[FT_WIRE_SPAN]; /* what is known of block n, from its base on: at n mod FT_WIRE_SPAN */
    uint8_t flight;               /* blocks asked for, or about to be */
    uint8_t tries;
    bool waiting;
    uint32_t next; /* the first block never asked for */
    uint32_t mark; /* blocks from here on were asked for after those that were asked for again */
    uint32_t at_ms, wait_ms;
} ft_wire_fetch;

typedef struct { /* blocks from base to below end of one object that the host asked for: a bit at n mod FT_WIRE_QUEUE */
    uint8_t object;
    uint32_t base, end;
    uint8_t bits[FT_WIRE_QUEUE / 8];
} ft_wire_queue;

typedef struct {
    const ft_wire_port *port;
    const ft_wire_facts *facts;
    ft_wire_tasks tasks;
    ft_wire_counts counts;
    uint8_t record[FT_WIRE_RECORD];
    ft_wire_handshake hands;
    ft_wire_session session;
    uint8_t state;                  /* of the task: FT_TASK_NONE, ... */
    uint8_t current;                /* its object on the way */
    uint8_t damaged;                /* bit i: object i came with a wrong hash */
    ft_wire_task task;
    ft_wire_reply reply;
    ft_wire_fetch fetch;
    ft_wire_queue queue;
    uint8_t wants; /* frames to send, a bit each */
    uint8_t refusal;
    uint32_t unknown_bits;
    uint32_t announce_at;
    bool announcing, spoke, overlong;
    uint16_t held, sent_from, sent_to;
    const char *log;
    uint8_t received[FT_WIRE_STUFFED];
    uint8_t sent_bytes[FT_WIRE_STUFFED];
} ft_wire;

/* Reads the record (makes one without a key if there is none), counts the boot and stores it before anything is sent.
 * FT_ERR_DATA: the record cannot be stored, and without a new boot counter no session would be safe. FT_ERR_ARG: facts. */
ft_status ft_wire_start(ft_wire *wire, const ft_wire_port *port, const ft_wire_facts *facts, ft_wire_tasks tasks);
void ft_wire_feed(ft_wire *wire, const uint8_t *bytes, size_t count);
/* Sends what is due, asks again for what did not come, works on a task that is complete. Returns in how many milliseconds it wants
 * to be called again if nothing comes: 0 = at once, FT_WIRE_FOREVER = never. */
uint32_t ft_wire_poll(ft_wire *wire);
bool ft_wire_sending(const ft_wire *wire); /* write did not take all yet: poll again when it may */
/* A task's objects or a reply's lie in memory that the core computes in: whoever calls ft_infer, or anything else that computes, now
 * costs the host that task. From the first object that comes to the task's end, and from a reply with objects to the next task. */
static inline bool ft_wire_holds(const ft_wire *wire)
{
    return wire->state == FT_TASK_DONE ? wire->reply.object_count > 0 : wire->state != FT_TASK_NONE;
}
void ft_wire_log(ft_wire *wire, const char *text); /* a line for the host's log; text stays until it is sent, a newer one replaces it */
const char *ft_wire_device(const ft_wire *wire); /* the id that counts now: MQTT topics, logs */
bool ft_wire_enrolled(const ft_wire *wire);

/* For tasks: all parameters at once, when they are what form says, a letter each: i an integer, f a float, whose bits out gets. */
bool ft_wire_numbers(const ft_wire_task *task, const char *form, uint32_t *out);
/* Or one by one: the next parameter; false at the end, or where it is no u32, no binary32. *at starts at 0. */
bool ft_wire_integer(const ft_wire_task *task, uint32_t *at, uint32_t *value);
bool ft_wire_float(const ft_wire_task *task, uint32_t *at, float *value);
bool ft_wire_no_more(const ft_wire_task *task, uint32_t at); /* all were read */
void ft_wire_add_integer(ft_wire_reply *reply, uint32_t value);
void ft_wire_add_double(ft_wire_reply *reply, double value);
/* Status and text, which must last as long as the reply; its first % stands for the first number, the next for the second. */
void ft_wire_fail(ft_wire_reply *reply, ft_status status, const char *text, uint32_t first, uint32_t second);

/* -- The tasks of PROTOCOL.md, done by the core. */

/* One piece of memory: the model at its start, then the node's arena, then what tasks bring and give, and at its end the samples of
 * put_data, unless a storage has them. With banks beside it some or all of the arena lies there. Fields are private. */
typedef struct ft_service {
    uint8_t *memory;
    uint32_t bytes;
    const ft_data *own;
    ft_status (*load)(struct ft_service *, uint32_t room, const ft_config *, uint32_t *needed); /* NULL: into memory alone */
    const ft_bank *banks;
    uint32_t bank_count;
    ft_node *node;         /* NULL: no model runs */
    uint32_t model_bytes;  /* 0: none */
    uint32_t arena_at;     /* offset of the arena */
    uint32_t samples_at;   /* offset of the samples: they reach to the end */
    uint32_t samples, samples_in_all, dev_samples, floats;
    uint32_t peak;         /* bytes of the largest arena so far */
    uint8_t model[FT_WIRE_HASH];
    struct ft_stored *stored; /* NULL: samples lie in memory (fedtiny_storage.h) */
} ft_service;

/* memory: 8-byte aligned. own: an application's samples, which outlive the service, or NULL: put_data brings them. */
void ft_service_start(ft_service *service, void *memory, uint32_t bytes, const ft_data *own);
/* Banks that are faster than memory, the fastest first, for the parts of the arena; a program that does not call this does not link
 * it. Before the first model; banks and what they name outlive the service. FT_ERR_ARG: too late, none, or FT_BANKS_MAX and more. */
ft_status ft_service_banks(ft_service *service, const ft_bank *banks, uint32_t count);
ft_wire_tasks ft_service_tasks(ft_service *service);
ft_node *ft_service_node(const ft_service *service); /* NULL: no model yet. For applications that infer between two
                                                             * polls: not while ft_wire_holds */

#ifdef __cplusplus
}
#endif
#endif
