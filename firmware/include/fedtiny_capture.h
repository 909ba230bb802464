/* Samples that an application takes itself, as the core's ft_data: a ring in RAM or in flash, and a sliding window over a sensor's
 * readings. Nothing here sends a sample anywhere.
 *
 *     ft_ring_store store = ft_ring_in_bank(&bank, at, bytes, floats, FT_RING_I16);
 *     ft_ring_start(&ring, &config);
 *     ft_service_start(&service, memory, bytes, ft_ring_data(&ring));      the service's `own` samples
 *     for (;;) {
 *         ... ft_wire_poll(&wire) ...
 *         if (ft_window_push(&window, reading)) {                          a new window is complete
 *             ft_window_read(&window, x);
 *             ft_ring_put(&ring, x, &ticket);
 *         }
 *         if (somebody says what it was)
 *             ft_ring_label(&ring, ticket, class);
 *         ft_ring_bind(&ring, ft_service_node(&service));                  the node counts what there is now
 *     }
 *
 * All calls come from the loop that polls the wire: samples never change while a task reads them. What is not labelled is not trained
 * on. No malloc, no globals; lengths are in floats unless said otherwise. */
#ifndef FEDTINY_CAPTURE_H
#define FEDTINY_CAPTURE_H

#include <stdbool.h>

#include "fedtiny.h"
#include "fedtiny_storage.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How a number is kept: as it is, or as the integer nearest to (x - offset) / scale, held to its range. */
enum { FT_RING_F32, FT_RING_I16, FT_RING_U8 };
/* What a full ring does with one more: it takes the place of the oldest; of one drawn so that each sample that ever came has the same
 * chance to be there (a reservoir: RAM alone); or is refused. */
enum { FT_RING_OLDEST, FT_RING_RESERVOIR, FT_RING_KEEP };

/* Where samples lie: slots of ft_ring_slot_bytes, `group` of them erased together (1 in RAM). Each returns 0 for success; erased
 * bytes read as 0xFF; at and count of a write are multiples of 8, its bytes were erased and not written since. */
typedef struct {
    void *ctx;
    uint32_t slots; /* up to 65,535; whole groups */
    uint32_t group;
    int (*read)(void *ctx, uint32_t slot, uint32_t at, void *to, uint32_t count);
    int (*write)(void *ctx, uint32_t slot, uint32_t at, const void *from, uint32_t count);
    int (*erase)(void *ctx, uint32_t slot); /* the group that begins there */
} ft_ring_store;

typedef struct {
    const ft_ring_store *store; /* outlives the ring */
    uint16_t *order;            /* of store->slots numbers: which samples there are */
    uint32_t floats;            /* of one sample */
    uint16_t classes;           /* labels are below it */
    uint8_t form;               /* FT_RING_F32, ... */
    uint8_t policy;             /* FT_RING_OLDEST, ... */
    float scale, offset;        /* of FT_RING_I16 and FT_RING_U8; scale > 0 */
    uint16_t dev_every;         /* each so-manyth labelled sample joins the development set, 0: none */
    uint16_t dev_most;          /* until it has so many; they stay for good. Fewer than slots; in flash, of the first group alone */
    uint32_t seed;              /* of the reservoir */
} ft_ring_config;

/* Private, visible so that the caller can own it. */
typedef struct {
    ft_ring_config config;
    ft_data data;
    uint32_t used;   /* of order: development set, other labelled samples, those without a label */
    uint32_t cursor; /* slot that is written next */
    uint32_t ticket; /* of the sample that came last */
    uint32_t labelled; /* so far, those that are gone among them */
    uint32_t random;
} ft_ring;

uint32_t ft_ring_slot_bytes(uint32_t floats, uint8_t form); /* a multiple of 8 */

/* A store in RAM: `bytes` of a bank, 8-byte aligned, as many slots as fit. */
typedef struct {
    uint8_t *at;
    uint32_t slot_bytes;
} ft_ring_bank;
ft_ring_store ft_ring_in_bank(ft_ring_bank *bank, void *at, uint32_t bytes, uint32_t floats, uint8_t form);

/* A store in an area of storage, which is one group: a full ring of FT_RING_OLDEST begins anew. */
typedef struct {
    const ft_storage *storage; /* outlives the ring */
    uint32_t area, slot_bytes;
} ft_ring_area;
ft_ring_store ft_ring_in_area(ft_ring_area *place, const ft_storage *storage, uint32_t area, uint32_t floats, uint8_t form);

/* Takes up what the store holds: in flash the samples of before a reset, those that were whole.
 * FT_ERR_ARG: the configuration; FT_ERR_DATA: the store failed. */
ft_status ft_ring_start(ft_ring *ring, const ft_ring_config *config);

/* One sample without a label. *ticket (may be NULL) is its name for ft_ring_label; 0: the reservoir did not take it. FT_ERR_NONFINITE: it
 * has a NaN or an infinity; FT_ERR_NOMEM: the ring keeps what it has, or all that could go is the development set. */
ft_status ft_ring_put(ft_ring *ring, const float *x, uint32_t *ticket);

/* Its label, once. FT_ERR_ARG: no such class, or the sample is gone, or has one. */
ft_status ft_ring_label(ft_ring *ring, uint32_t ticket, uint16_t label);

const ft_data *ft_ring_data(const ft_ring *ring); /* labelled samples, the development set first; lives as long as the ring */
ft_status ft_ring_bind(const ft_ring *ring, ft_node *node); /* after any change; node may be NULL */
uint32_t ft_ring_waiting(const ft_ring *ring);    /* samples without a label */

/* The last `length` readings of `channels` numbers each; every `hop` readings a window. */
typedef struct {
    float *readings; /* channels * length numbers */
    uint32_t channels, length, hop;
    uint32_t at, fresh; /* the next place; readings since the last window */
    bool filled;
} ft_window;

void ft_window_start(ft_window *window, float *readings, uint32_t channels, uint32_t length, uint32_t hop);
bool ft_window_push(ft_window *window, const float *reading); /* true: a window is complete */
void ft_window_read(const ft_window *window, float *x);       /* x (channels, length), the oldest reading first */

#ifdef __cplusplus
}
#endif
#endif
