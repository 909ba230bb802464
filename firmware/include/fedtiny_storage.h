/* What a node keeps over a loss of power beside its record: the last good model, in two slots of storage. The third public header;
 * only ports that use it link it.
 *
 *     static ft_saver saver;
 *     ft_service_start(&service, memory, bytes, own);
 *     ft_wire_start(&wire, &port, &facts, ft_service_tasks(&service));
 *     ft_saver_start(&saver, &service, &wire, storage);      after it ft_service_node is the last good model, if there is one
 *
 * The model (blob, masks, values, statistics, and the settings of its load) is saved when the host has loaded or installed one: at most
 * once a round, that is once for each pair of a task's run and round, and never again for what lies there already. What comes second in a
 * round is saved with the first task of the next one, unless the node trains before: then it has values of its own, which are not saved.
 * A save erases the older slot and writes it once; power that fails meanwhile leaves the newer one. What a host loads again after a reset is not sent again: the node has it.
 * A model belongs to the key under which it was saved: a start with another key, or with none since a FORGET, brings nothing up, and erases
 * what another key left in the slots and what a host left in FT_AREA_SAMPLES. Samples that an application keeps there stay. */
#ifndef FEDTINY_STORAGE_H
#define FEDTINY_STORAGE_H

#include "fedtiny_wire.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Areas that are erased as a whole. FT_AREA_SAMPLES may be lost over a reset. */
enum { FT_AREA_MODEL_0, FT_AREA_MODEL_1, FT_AREA_SAMPLES, FT_AREAS };

/* Each returns 0 for success. Erased bytes read as 0xFF. write: at and count are multiples of FT_STORAGE_UNIT, and these bytes were
 * erased and not written since. from and to have any alignment. */
enum { FT_STORAGE_UNIT = 8 };
typedef struct {
    void *ctx;
    uint32_t bytes[FT_AREAS]; /* of each area; 0: there is none */
    int (*read)(void *ctx, uint32_t area, uint32_t at, void *to, uint32_t count);
    int (*write)(void *ctx, uint32_t area, uint32_t at, const void *from, uint32_t count);
    int (*erase)(void *ctx, uint32_t area);
} ft_storage;

/* A slot: u8[4] "FTMD" | u32 sequence, +1 with each save | u8[8] run | u32 round | u32 bytes of the model, masks, values, statistics |
 * u8 bytes of the parameters | u8[3] of a hash of the node's key, 0: none | u8[16] the model's hash | u8[56] the LOAD's parameters, then
 * zeros | model, masks, values, statistics, as objects of PROTOCOL.md, each filled up to 8 bytes | u32 CRC-32 of all before it, u32 its
 * complement.
 * Masks, values and statistics have no bytes where the model's own count. The good slot with the larger sequence counts. */
enum { FT_SAVER_HEAD = 112, FT_SAVER_PARAMETERS = 56 };

/* Private, visible so that the caller can own it. */
typedef struct {
    ft_service *service;
    ft_wire *wire;
    const ft_storage *storage;
    ft_wire_tasks tasks; /* of the service */
    uint32_t newest;     /* slot; FT_AREAS: none */
    uint8_t head[FT_SAVER_HEAD]; /* of what is saved or, from a load on, of what is to be */
    bool pending;        /* the model that runs is to be saved in another round */
    bool loaded_only;    /* it has the values that came with it */
    bool counted;        /* run and round of head: of the last save */
    bool stored;         /* settings and hash of head lie in the newest slot */
    char said[FT_WIRE_PROBLEM + 1];
    uint32_t saves;
} ft_saver;

/* Brings up the last good model that fits the service's memory, and does the wire's tasks from here on: once the wire has started, for it
 * knows the key, and before anything is fed. wire: NULL, for who does ft_saver_tasks itself: whoever saved a model, it is brought up. storage:
 * NULL or without slots: nothing is kept, and the tasks are the service's own. true: there is a model. */
bool ft_saver_start(ft_saver *saver, ft_service *service, ft_wire *wire, const ft_storage *storage);
ft_wire_tasks ft_saver_tasks(ft_saver *saver);

/* Samples that a host sends go to FT_AREA_SAMPLES and not into the service's memory, of which this takes FT_SERVICE_STORED bytes. Called
 * after ft_service_start and before the wire starts; the storage outlives the service. false: there is neither; they go into memory. */
enum { FT_SERVICE_STORED = 1088 };
bool ft_service_store_samples(ft_service *service, const ft_storage *storage);

#ifdef __cplusplus
}
#endif
#endif
