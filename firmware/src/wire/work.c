/* What a model does for a task. Between two calls the core's work memory is idle: values and masks come into it and go from it.
 * What must outlast a call lies behind the memory that this call works in. */
#include "../bytes.h"
#include "service.h"

enum { HEAD = 4, MASK_HEAD = 8, SCORE = 12, F32 = 0, F16 = 1 };

/* Memory of one task: what is not taken yet, up to the samples. */
typedef struct {
    ft_service *s;
    const ft_wire_task *task;
    ft_wire_reply *reply;
    uint32_t at;
} desk;

static uint32_t work_start(const ft_service *s)
{
    const ft_memory *m = ft_memory_of(s->node);
    if (s->bank_count) /* parts lie apart: none of the arena can be lent */
        return ft_service_below(s);
    return ft_align8(s->arena_at + m->node + m->weights + m->indices + m->statistics);
}

uint32_t ft_work_at(const ft_service *s, uint8_t kind)
{
    enum { FIRST = FT_DO_MEASURE_BN, COUNT = FT_DO_INFER - FIRST + 1 };
    static const uint8_t modes[COUNT] = {1, 0, 2, 3, 0}; /* bit numbers of FT_MODE_* */
    uint32_t i = kind - (uint32_t)FIRST, busy = i < COUNT && !s->bank_count ? ft_memory_of(s->node)->mode_work[modes[i]] : 0;
    return ft_align8(work_start(s) + busy);
}

/* NULL: there is no room for so many things of so many bytes, and the reply says so. */
static void *take(desk *d, uint32_t count, uint32_t each)
{
    uint32_t room = d->s->samples_at > d->at ? d->s->samples_at - d->at : 0;
    void *at = d->s->memory + d->at;
    if (count > room / each || ft_align8(count * each) > room) {
        ft_service_no_room(d->reply, count * each, room);
        return 0;
    }
    d->at += ft_align8(count * each);
    return at;
}

static float *take_floats(desk *d, uint32_t count) { return take(d, count, sizeof(float)); }

static bool check(desk *d, ft_status status)
{
    d->reply->status = (uint8_t)status;
    return status == FT_OK;
}

static bool wrong(desk *d) { return ft_service_wrong(d->reply); }

/* The task's object of this kind; NULL: there is none. */
static const uint8_t *object(const desk *d, uint8_t kind, uint32_t *length)
{
    for (uint32_t i = 0; i < d->task->object_count; i++)
        if (d->task->objects[i].ref.kind == kind) {
            *length = d->task->objects[i].ref.length;
            return d->task->objects[i].at;
        }
    return 0;
}

/* A vector's numbers, where they lie: every target is little-endian. NULL: the reply says why. */
static const float *vector(desk *d, const uint8_t *bytes, uint32_t length, uint32_t *count)
{
    *count = length / (uint32_t)sizeof(float) - 1;
    if (length >= HEAD && length % sizeof(float) == 0 && ft_load_u32(bytes) == F32)
        return (const float *)(const void *)(bytes + HEAD);
    wrong(d);
    return 0;
}

static void give(desk *d, uint8_t kind, uint8_t form, const void *at, uint32_t count)
{
    d->reply->objects[d->reply->object_count++] = (ft_wire_source){{kind, {0}, 0}, form, at, count};
}

static uint32_t subset_count(const ft_service *s, uint32_t subset)
{
    ft_data data;
    const ft_data *samples = ft_samples_own(s, &data);
    return subset == FT_DATA_DEV ? samples->dev_count : samples->count;
}

/* -- install */

static bool masks(desk *d, const uint8_t *bytes, uint32_t length)
{
    while (length) {
        if (length < MASK_HEAD || ft_load_u32(bytes + 4) > length - MASK_HEAD)
            return wrong(d);
        uint32_t count = ft_load_u32(bytes + 4), encoding = bytes[2] | (uint32_t)bytes[3] << 8;
        if (!check(d, ft_set_mask(d->s->node, ft_load_u16(bytes), encoding, bytes + MASK_HEAD, count))) {
            ft_wire_fail(d->reply, (ft_status)d->reply->status, "the mask of layer % was refused", ft_load_u16(bytes), 0);
            return false;
        }
        bytes += MASK_HEAD + count;
        length -= MASK_HEAD + count;
    }
    return true;
}

static void install(desk *d)
{
    uint32_t length, count;
    const uint8_t *bytes = object(d, FT_KIND_MASKS, &length);
    const float *numbers;
    if (bytes && !masks(d, bytes, length))
        return;
    bytes = object(d, FT_KIND_VALUES, &length);
    if (!bytes) {
        wrong(d);
        return;
    }
    numbers = vector(d, bytes, length, &count);
    if (!numbers || !check(d, ft_set_values(d->s->node, numbers, count)))
        return;
    bytes = object(d, FT_KIND_STATISTICS, &length);
    if (bytes && (numbers = vector(d, bytes, length, &count)) != 0)
        check(d, ft_set_stats(d->s->node, numbers, count));
}

/* measure_bn and evaluate: for the installed values, or each candidate in turn. Then the installed values and statistics are back,
 * whatever happened. */
static void candidates(desk *d, bool evaluates)
{
    ft_node *node = d->s->node;
    uint32_t layers = ft_layer_count(node), values = ft_value_count(node), floats = ft_stat_count(node);
    uint32_t n[2], length = 0, samples, given = 0, each = evaluates ? SCORE : floats * (uint32_t)sizeof(float);
    const float *thresholds = (const void *)object(d, FT_KIND_CANDIDATES, &length), *stats = 0;
    ft_score_sum sum;
    if (!ft_wire_numbers(d->task, "ii", n) || (n[1] > 0) != (thresholds != 0)
        || (n[1] && (length % n[1] || length / n[1] != layers * sizeof(float)))) {
        wrong(d);
        return;
    }
    uint32_t rows = n[1] ? n[1] : 1;
    const uint8_t *bytes = object(d, FT_KIND_STATISTICS, &length);
    if (bytes && (stats = vector(d, bytes, length, &given)) == 0)
        return;
    if (bytes && (given % rows || given / rows != floats)) {
        wrong(d);
        return;
    }
    uint8_t *results = each ? take(d, rows, each) : d->s->memory;
    float *installed = take_floats(d, n[1] ? values : 0), *before = take_floats(d, floats);
    if (!results || !installed || !before || (n[1] && !check(d, ft_get_values(node, installed, values))))
        return;
    ft_get_stats(node, before, floats);
    memset(results, 0, rows * each);
    for (uint32_t row = 0; row < rows; row++) {
        uint8_t *to = results + row * each;
        if (n[1] && !check(d, ft_set_thresholds(node, thresholds + row * layers, layers)))
            break;
        if (stats && !check(d, ft_set_stats(node, stats + row * floats, floats)))
            break;
        if (!check(d, evaluates ? ft_evaluate(node, n[0], &sum)
                                : ft_measure_bn(node, n[0], (float *)(void *)to, floats, &samples)))
            break;
        if (evaluates) {
            memcpy(to, &sum.loss_sum, sizeof sum.loss_sum);
            memcpy(to + sizeof sum.loss_sum, &sum.correct, sizeof sum.correct);
        }
    }
    ft_set_stats(node, before, floats);
    if (n[1])
        ft_set_values(node, installed, values);
    ft_wire_add_integer(d->reply, subset_count(d->s, n[0]));
    if (evaluates)
        give(d, FT_KIND_SCORES, FT_WIRE_BYTES, results, rows * each);
    else
        give(d, FT_KIND_MOMENTS, FT_WIRE_F32, results, rows * floats);
}

/* -- train, score, infer */

static void train(desk *d)
{
    ft_node *node = d->s->node;
    ft_train_task task;
    ft_score_sum sum;
    uint32_t n[6], values = ft_value_count(node), floats = ft_stat_count(node), start = work_start(d->s);
    if (!ft_wire_numbers(d->task, "iifffi", n) || n[5] > F16) {
        wrong(d);
        return;
    }
    const uint32_t fields[] = {n[0], n[2], n[3], n[4], n[1]}; /* ft_train_task's, in its order */
    memcpy(&task, fields, sizeof task);
    uint32_t moments_at = d->at;
    d->at = start;
    float *trained = take_floats(d, values); /* from idle memory: filled when training is over */
    if (!trained)
        return;
    d->at = d->at > moments_at ? d->at : moments_at;
    float *moments = take_floats(d, floats);
    if (!moments || !check(d, ft_train(node, &task, &sum, moments, floats))
        || !check(d, ft_get_values(node, trained, values)))
        return;
    ft_wire_add_integer(d->reply, subset_count(d->s, FT_DATA_ALL));
    ft_wire_add_integer(d->reply, sum.samples);
    ft_wire_add_integer(d->reply, sum.correct);
    ft_wire_add_double(d->reply, sum.loss_sum);
    give(d, FT_KIND_VALUES, n[5] ? FT_WIRE_F16 : FT_WIRE_F32, trained, values);
    give(d, FT_KIND_MOMENTS, FT_WIRE_F32, moments, floats);
}

static void score(desk *d)
{
    uint32_t at = 0, batches, seed, layer, k, found, begin = d->at;
    const ft_topk_entry *entries;
    bool good = ft_wire_integer(d->task, &at, &batches) && ft_wire_integer(d->task, &at, &seed);
    while (good && !ft_wire_no_more(d->task, at)) {
        good = ft_wire_integer(d->task, &at, &layer) && ft_wire_integer(d->task, &at, &k) && layer <= 0xFFFF;
        if (!good)
            break;
        if (!check(d, ft_score(d->s->node, layer, k, batches, seed, &entries, &found)))
            return;
        uint32_t *out = take(d, found + 1, sizeof *entries); /* the head has the size of an entry */
        if (!out)
            return;
        out[0] = layer;
        out[1] = found;
        memcpy(out + 2, entries, found * sizeof *entries);
    }
    if (!good) {
        wrong(d);
        return;
    }
    ft_wire_add_integer(d->reply, subset_count(d->s, FT_DATA_ALL));
    give(d, FT_KIND_TOPK, FT_WIRE_BYTES, d->s->memory + begin, d->at - begin);
}

static void infer(desk *d)
{
    uint32_t count, length, floats = ft_input_size(d->s->node), classes = ft_class_count(d->s->node);
    const uint8_t *bytes = object(d, FT_KIND_SAMPLES, &length);
    ft_shard shard;
    if (!bytes || !ft_wire_numbers(d->task, "i", &count)
        || !ft_shard_open(&shard, bytes, length, floats, false) || shard.count != count || !ft_shard_check(&shard, floats)) {
        wrong(d);
        return;
    }
    float *x = take_floats(d, floats), *logits = take(d, count, classes * (uint32_t)sizeof(float));
    if (!x || !logits)
        return;
    for (uint32_t i = 0; i < count; i++) {
        ft_shard_read(&shard, i, floats, x);
        if (!check(d, ft_infer(d->s->node, x, logits + i * classes)))
            return;
    }
    give(d, FT_KIND_LOGITS, FT_WIRE_F32, logits, count * classes);
}

void ft_work_do(ft_service *s, const ft_wire_task *task, ft_wire_reply *reply)
{
    desk d = {s, task, reply, ft_work_at(s, task->kind)};
    for (uint32_t i = 0; i < task->object_count; i++)
        d.at += ft_align8(task->objects[i].ref.length);
    switch (task->kind) {
    case FT_DO_INSTALL:
        install(&d);
        break;
    case FT_DO_MEASURE_BN:
    case FT_DO_EVALUATE:
        candidates(&d, task->kind == FT_DO_EVALUATE);
        break;
    case FT_DO_TRAIN:
        train(&d);
        break;
    case FT_DO_SCORE:
        score(&d);
        break;
    case FT_DO_INFER:
        infer(&d);
        break;
    default: /* service.c does the others */
        break;
    }
}
