/* Tasks on the core. service.c: model, memory and the dispatch; samples.c: put_data and reading; stored.c: these on a storage; work.c: what a model does. */
#ifndef FT_SERVICE_H
#define FT_SERVICE_H

#include "fedtiny_storage.h"
#include "fedtiny_wire.h"

enum { FT_KIND_MODEL = 1, FT_KIND_MASKS, FT_KIND_VALUES, FT_KIND_STATISTICS, FT_KIND_MOMENTS, FT_KIND_CANDIDATES, FT_KIND_TOPK,
       FT_KIND_SAMPLES, FT_KIND_LOGITS, FT_KIND_SCORES };
enum { FT_DO_DESCRIBE = 1, FT_DO_PUT_DATA, FT_DO_LOAD, FT_DO_INSTALL, FT_DO_MEASURE_BN, FT_DO_EVALUATE, FT_DO_TRAIN, FT_DO_SCORE,
       FT_DO_INFER, FT_DO_REPORT };

/* What goes wrong in more than one place; both return false. */
bool ft_service_wrong(ft_wire_reply *reply);                              /* FT_ERR_ARG: not as PROTOCOL.md has this task */
bool ft_service_no_room(ft_wire_reply *reply, uint32_t bytes, uint32_t room); /* FT_ERR_NOMEM */

static inline uint32_t ft_align8(uint32_t bytes) { return (bytes + 7) & ~7u; }

/* samples.c */
/* Where a part goes, as an offset; FT_SERVICE_NOWHERE with the reply saying why. */
#define FT_SERVICE_NOWHERE 0xFFFFFFFFu
enum { FT_SAMPLES_TAIL = 8 }; /* bytes behind each part in memory */
uint32_t ft_samples_place(ft_service *s, const ft_wire_task *task, uint32_t length, ft_wire_reply *reply);
void ft_samples_put(ft_service *s, const ft_wire_task *task, ft_wire_reply *reply);
void ft_samples_bind(ft_service *s, ft_wire_reply *reply); /* gives the node its data */
const ft_data *ft_samples_own(const ft_service *s, ft_data *data); /* the application's, or those of put_data in *data */
/* An object of kind 8: samples of `floats` numbers; labels: two bytes for each stand behind them all. */
typedef struct {
    const uint8_t *colours, *numbers; /* colours NULL: f32 */
    uint32_t count;                   /* samples */
} ft_shard;
bool ft_shard_open(ft_shard *shard, const uint8_t *bytes, uint32_t length, uint32_t floats, bool labels);
bool ft_shard_check(const ft_shard *shard, uint32_t floats); /* every number has its colour */
void ft_shard_read(const ft_shard *shard, uint32_t index, uint32_t floats, float *x);

/* stored.c: samples in a storage. At the end of the service's memory. */
struct ft_stored {
    int (*read)(void *service, uint32_t index, float *x, uint16_t *label); /* as ft_data's */
    /* A part of put_data that lies in memory goes to the storage; the first one in place of all that was there. */
    bool (*add)(ft_service *s, uint32_t first, uint32_t count, const ft_wire_object *part, ft_wire_reply *reply);
    const ft_storage *storage;
    uint32_t end;                    /* of the parts, in the storage */
    uint32_t at, bytes, first, count; /* the part that was read last; count 0: none */
    uint32_t numbers;                /* where its numbers lie */
    uint32_t colours;                /* of it; 0: f32 */
    float colour[256];
};

/* work.c */
uint32_t ft_work_at(const ft_service *s, uint8_t kind); /* offset of the memory that this task leaves alone while it works */
void ft_work_do(ft_service *s, const ft_wire_task *task, ft_wire_reply *reply);
uint32_t ft_service_below(const ft_service *s); /* offset behind model and arena */

#endif
