/* Tasks on the core. service.c: model, memory and the dispatch; samples.c: put_data and reading; work.c: what a model does. */
#ifndef FT_SERVICE_H
#define FT_SERVICE_H

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

/* work.c */
uint32_t ft_work_at(const ft_service *s, uint8_t kind); /* offset of the memory that this task leaves alone while it works */
void ft_work_do(ft_service *s, const ft_wire_task *task, ft_wire_reply *reply);
uint32_t ft_service_below(const ft_service *s); /* offset behind model and arena */

#endif
