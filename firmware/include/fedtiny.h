/* fedtiny: sparse federated training on a microcontroller. The core's public header; the wire's is fedtiny_wire.h.
 *
 * The caller owns all memory: one arena or a few banks, one blob, one data source. No malloc, no globals, no stdio; two nodes in one
 * process work. Calls on one node must not overlap. All floats are binary32 and results are the same bits on every target,
 * except from a core built with FT_FAST defined (and -ffp-contract=fast): it fuses multiply and add, rounds less often, and
 * its results are close to, not equal to, those of other builds.
 */
#ifndef FEDTINY_H
#define FEDTINY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FT_VERSION_MAJOR 0
#define FT_VERSION_MINOR 1

typedef enum {
    FT_OK = 0,
    FT_ERR_BLOB = 1,        /* the blob is damaged or breaks a rule of BLOB.md */
    FT_ERR_VERSION = 2,     /* the blob has another version or an unknown incompat flag */
    FT_ERR_UNSUPPORTED = 3, /* a well-formed blob asks for what this core lacks */
    FT_ERR_NOMEM = 4,       /* the memory is too small: ft_load and ft_plan_banks say what it takes */
    FT_ERR_STATE = 5,       /* the call does not fit the node's state, e.g. training before values came */
    FT_ERR_ARG = 6,         /* an argument is out of range */
    FT_ERR_NONFINITE = 7,   /* NaN or infinity in data, weights or loss */
    FT_ERR_DATA = 8         /* the data source failed or gave a label out of range */
} ft_status;

/* Where samples come from. read() writes one sample (the input tensor's floats) and its label; 0 = success.
 * Samples [0, dev_count) are the development set: a random part of the node's data, fixed when it was put there. */
typedef struct {
    void *ctx;
    int (*read)(void *ctx, uint32_t index, float *x, uint16_t *label);
    uint32_t count;
    uint32_t dev_count;
} ft_data;

enum { FT_MODE_INFER = 1, FT_MODE_MEASURE = 2, FT_MODE_TRAIN = 4, FT_MODE_SCORE = 8, FT_MODE_ALL = 15 };
enum { FT_NORM_BATCH = 0, FT_NORM_FROZEN = 1 }; /* statistics of the micro-batch, or the stored ones */
enum { FT_KEEP_F32 = 0, FT_KEEP_F16 = 1, FT_KEEP_INT8 = 2 }; /* form of what training keeps for its backward pass */
/* Cross-entropy of softmax against the label, or the mean of squared differences over all outputs: from the label's one-hot
 * vector, or from the sample itself (as many outputs as inputs; labels are not read, nothing counts as a hit). */
enum { FT_LOSS_CROSS_ENTROPY = 0, FT_LOSS_MSE = 1, FT_LOSS_RECONSTRUCTION = 2 };
/* How a layer with a mask is held: whatever takes fewer instructions by the table in plan.c, or as its live weights alone. A
 * layer nearly full is quicker with all weights in place, zeros where it is pruned; results are the same but for the sign of
 * zeros, and values, gradients and masks mean the same. */
enum { FT_HOLD_BY_COST = 0, FT_HOLD_SPARSE = 1 };
enum { FT_MASK_BITMAP = 1, FT_MASK_DELTAS = 2, FT_MASK_RICE = 3 }; /* Golomb-Rice: FT_MASK_RICE | parameter << 8 */
enum { FT_DATA_DEV = 0, FT_DATA_ALL = 1 };

/* What a node will be asked to do; decides how much memory it needs. Zero in keep, lean, layerwise and plain_sgd: fastest;
 * of these only `keep` changes results. */
typedef struct {
    uint16_t micro_batch;      /* samples per training step and per BN measurement, 1 to 256 */
    uint8_t modes;             /* FT_MODE_* or-ed */
    uint8_t norm;              /* FT_NORM_*: how batch norms train */
    uint32_t topk_max;         /* most entries one ft_score call may return */
    uint32_t score_tile_bytes; /* RAM for gradient rows of pruned weights; more = fewer passes; 0 = one row */
    uint8_t keep;              /* FT_KEEP_*: f16 and int8 round what backward reads; forward stays exact */
    uint8_t lean;              /* 1: convolutions row by row, depthwise outputs computed again: less memory, more time */
    uint8_t layerwise;         /* 1: a layer's values change as soon as its gradient is known; ft_gradient: FT_ERR_STATE */
    uint8_t plain_sgd;         /* 1: no memory for momentum; ft_train with momentum > 0: FT_ERR_ARG */
    uint16_t last_layers;      /* only the last so many layers train, 0: all; what comes before them is a constant */
    uint8_t loss;              /* FT_LOSS_*: of training, scoring and evaluation */
    uint8_t hold;              /* FT_HOLD_*; with `lean` a layer is held whole only where that takes no more memory */
} ft_config;

/* A contiguous piece of RAM, 8-byte aligned. Banks come in order of preference: the fastest first. */
enum { FT_BANKS_MAX = 4 };
typedef struct {
    void *at; /* ft_plan_banks reads only bytes */
    uint32_t bytes;
} ft_bank;

/* Bytes by kind; values of a layer that is held whole count whole. The kinds of work (gradients to topk) are those of the mode that takes most, so all kinds add up to peak. */
typedef struct {
    uint32_t node;           /* the node's own state and operator tables */
    uint32_t weights;        /* live values */
    uint32_t indices;        /* positions of live weights */
    uint32_t statistics;     /* stored and measured moments of batch norms */
    uint32_t gradients;      /* of live weights */
    uint32_t momentum;       /* of live weights */
    uint32_t activations;    /* at their worst moment, their gradients included */
    uint32_t scratch;        /* padded input, rows, interleaved samples */
    uint32_t topk;           /* heap and gradient rows */
    uint32_t mode_work[4];   /* total work bytes of infer, measure, train, score; 0 when not planned */
    uint32_t peak;           /* one arena for all must have this many bytes */
    uint32_t bank[FT_BANKS_MAX]; /* bytes that each bank must have, from its start on; with one bank bank[0] = peak */
} ft_memory;

/* The parts of a node's memory: each lies in one bank. */
typedef enum {
    FT_PART_NODE,       /* its state and tables */
    FT_PART_WEIGHTS,    /* live values */
    FT_PART_INDICES,    /* positions of live weights */
    FT_PART_STATISTICS, /* moments of norms, labels of the micro-batch */
    FT_PART_WORK,       /* activations, their gradients, scratch */
    FT_PART_TOPK,       /* heap and gradient rows */
    FT_PART_GRADIENTS,  /* of the values that train */
    FT_PART_MOMENTUM,   /* of the values that train */
    FT_PARTS
} ft_part;

/* How a node's parts were spread over banks. Parts of different modes may share bytes, so they can add up to more than the
 * banks take. After FT_ERR_NOMEM `missing` is the part that finds no place of bytes[missing] contiguous bytes however the
 * busier ones are spread, or FT_PART_NODE where no bank holds what planning takes; `at` and `bank` then mean nothing. */
typedef struct {
    uint32_t bytes[FT_PARTS];
    uint32_t at[FT_PARTS]; /* in its bank */
    uint8_t bank[FT_PARTS];
    ft_part missing; /* FT_PARTS: none */
} ft_spread;

typedef struct ft_node ft_node;

/* The bytes that ft_load will need, by kind. Computed from the blob alone; allocates nothing. scratch: a buffer of
 * ft_plan_scratch(blob) bytes, 4-byte aligned, for the planner's tables. out is written on success only. */
ft_status ft_plan(const uint8_t *blob, size_t blob_bytes, const ft_config *config, void *scratch, size_t scratch_bytes,
                  ft_memory *out);
size_t ft_plan_scratch(const uint8_t *blob, size_t blob_bytes); /* 0 when the blob's header is invalid */

/* The same for 1 to FT_BANKS_MAX banks: what ft_load_banks will do with banks of these sizes. The busiest part lies in the
 * first bank that leaves every other part a place, then the next busiest, and so on: where any spreading fits, one is found.
 * out and spread (may be NULL) are written on FT_OK and where FT_ERR_NOMEM is due to the
 * banks; a scratch too small is FT_ERR_ARG. */
ft_status ft_plan_banks(const uint8_t *blob, size_t blob_bytes, const ft_config *config, const ft_bank *banks,
                        uint32_t count, void *scratch, size_t scratch_bytes, ft_memory *out, ft_spread *spread);

/* Builds a node in the arena (8-byte aligned). The blob is read in place and must outlive the node; values and masks are
 * copied. The node is ready to work with the blob's own values. On FT_ERR_NOMEM *needed (may be NULL) is the bytes that the
 * arena must have: the plan's peak or, where not even the planner's tables fit, what those take, which may not be all. */
ft_status ft_load(void *arena, size_t arena_bytes, const uint8_t *blob, size_t blob_bytes, const ft_config *config,
                  ft_node **out, uint32_t *needed);
/* The same in 1 to FT_BANKS_MAX banks. spread (may be NULL) is written as by ft_plan_banks. */
ft_status ft_load_banks(const ft_bank *banks, uint32_t count, const uint8_t *blob, size_t blob_bytes,
                        const ft_config *config, ft_node **out, ft_spread *spread);
ft_status ft_set_data(ft_node *node, const ft_data *data); /* copies the struct */

uint32_t ft_input_size(const ft_node *node);   /* floats of one sample */
uint32_t ft_class_count(const ft_node *node);  /* floats of one output */
uint32_t ft_layer_count(const ft_node *node);  /* weights of convolutions and linear layers */
uint32_t ft_value_count(const ft_node *node);  /* floats of the values vector: changes with a mask */
uint32_t ft_trained_count(const ft_node *node); /* floats at the end of the values vector that train */
uint32_t ft_stat_count(const ft_node *node);   /* floats of the statistics and of the moments vector */
uint32_t ft_abi_hash(const ft_node *node);
const ft_memory *ft_memory_of(const ft_node *node);

/* Vectors as BLOB.md orders them. count must be exact. Non-finite values are refused and change nothing. */
ft_status ft_set_values(ft_node *node, const float *values, uint32_t count);
ft_status ft_get_values(const ft_node *node, float *values, uint32_t count);
ft_status ft_set_stats(ft_node *node, const float *stats, uint32_t count);
ft_status ft_get_stats(const ft_node *node, float *stats, uint32_t count);

/* Replaces the mask of one layer. Refused (and nothing changes) when malformed or when it needs more live weights than the
 * layer had at load. The node then wants ft_set_values before it works again. Dense layers have no mask: FT_ERR_ARG. */
ft_status ft_set_mask(ft_node *node, uint32_t layer, uint32_t encoding, const uint8_t *mask, uint32_t mask_bytes);

/* The mask of one layer as a bitmap (FT_MASK_BITMAP; bits behind the last weight are 0). *bytes: what it takes, also where capacity
 * is less (FT_ERR_NOMEM). Dense layers have no mask: FT_ERR_ARG. */
ft_status ft_get_mask(const ft_node *node, uint32_t layer, uint8_t *bitmap, uint32_t capacity, uint32_t *bytes);

/* A candidate of the pool: working weights = the blob's values with every |w| < thresholds[layer] set to 0. Dense layers
 * ignore theirs. count = layers. The mask stays; ft_set_values ends it. */
ft_status ft_set_thresholds(ft_node *node, const float *thresholds, uint32_t count);

typedef struct {
    double loss_sum; /* of samples: cross-entropy in nats, or the mean of squared differences */
    uint32_t correct;
    uint32_t samples;
} ft_score_sum;

/* Moments of every batch norm over the development set or all data, forward in training mode in micro-batches. */
ft_status ft_measure_bn(ft_node *node, uint32_t which, float *moments, uint32_t count, uint32_t *samples);

/* Loss and hits with the stored statistics. */
ft_status ft_evaluate(ft_node *node, uint32_t which, ft_score_sum *out);

typedef struct {
    uint32_t epochs;
    float lr;
    float momentum;
    float weight_decay;
    uint32_t seed; /* order of samples: epoch e uses ft_shuffle with key seed + e */
} ft_train_task;

/* epochs passes of SGD (torch.optim.SGD's rule, momentum from zero) over all samples in micro-batches; an incomplete last
 * micro-batch is left out unless it is the only one. result: loss and hits of the last epoch, seen while training. moments
 * (may be NULL): BN moments of the last epoch, zero where norms are frozen. Every sample is read once before the first step:
 * a label out of range or a NaN leaves the weights as they were. Where training itself diverges, FT_ERR_NONFINITE: the
 * weights are those of the last step with a finite loss or, when they overflowed, the node wants ft_set_values. */
ft_status ft_train(ft_node *node, const ft_train_task *task, ft_score_sum *result, float *moments, uint32_t moment_count);

typedef struct {
    uint32_t index; /* flat index in the layer's weight */
    float gradient;
} ft_topk_entry;

/* The k pruned weights of a layer whose loss gradient, averaged over `batches` micro-batches (the first of the order that
 * ft_shuffle(seed) gives), is largest in magnitude; ties to the lower index; ascending by index. *entries lies in the node's memory
 * until the next call; *found <= k. A layer that does not train (last_layers): FT_ERR_ARG. */
ft_status ft_score(ft_node *node, uint32_t layer, uint32_t k, uint32_t batches, uint32_t seed,
                   const ft_topk_entry **entries, uint32_t *found);

/* Logits of one sample with the stored statistics. */
ft_status ft_infer(ft_node *node, const float *x, float *logits);

/* Gradient of the mean loss of one micro-batch with respect to the ft_trained_count last values: the test's window into a step.
 * samples [first, first + count), count <= micro_batch. */
ft_status ft_gradient(ft_node *node, uint32_t first, uint32_t count, const float **gradients, double *loss_sum);

/* A keyed bijection of [0, count): the i-th sample of an epoch. Four Feistel rounds, cycle-walking; no memory. */
uint32_t ft_shuffle(uint32_t index, uint32_t count, uint32_t key);

const char *ft_status_text(ft_status status);

#ifdef __cplusplus
}
#endif
#endif
