/* Where everything lies: lifetimes of activations and their gradients, in-place operators, bytes by kind.
 *
 * The host's planner and a node call the same ft_plan_layout, so their numbers are one number. Offsets of forward passes are
 * floats *per sample*, so one placement serves a sample and a micro-batch; offsets of training are floats of the whole
 * micro-batch and cover scratch and packed activations too. */
#ifndef FT_PLAN_H
#define FT_PLAN_H

#include <stdbool.h>

#include "blob.h"
#include "op/conv.h"

#define FT_NOWHERE 0xFFFFFFFFu

enum { FT_KEPT_NOT = 0, FT_KEPT_F16, FT_KEPT_INT8, FT_KEPT_WHOLE, FT_KEPT_DERIVED }; /* keep.h; two are those of pack.h */

typedef struct {
    uint32_t forward_at; /* inference and BN measurement */
    uint32_t train_at;
    uint32_t gradient_at; /* FT_NOWHERE: the input, which has none */
    uint32_t kept_at;     /* packed; FT_NOWHERE: not packed */
    uint16_t root;        /* the tensor whose memory a flattened one shares; else itself */
    uint16_t writer;      /* the operator that gives it; FT_NONE: the input */
    uint8_t kept;         /* FT_KEPT_* */
    bool whole;           /* whatever the configuration says: kept in place */
    bool adds;            /* derived through a sum */
    uint8_t depth;        /* of derivation */
} ft_place;

typedef struct {
    uint32_t start;    /* of weights, gradients and momentum */
    uint32_t live;     /* values now: what the values vector has of it */
    uint32_t held;     /* floats now: more than live where a layer with a mask is held whole, 0 where it is pruned */
    /* weights: u16s into indices; sparse: counts of rows, then positions; whole: one row's positions, then a mask's bitmap */
    uint32_t index_at : 31;
    uint32_t whole : 1;
} ft_slot;

typedef struct {
    uint32_t kept_at;      /* norms: floats into kept */
    uint32_t statistic_at; /* batch norms: floats into the statistics vector */
    bool accumulate[2];    /* backward: an earlier step has already written this input's gradient */
    uint32_t picks_at;     /* training: bytes that say which input of each window of a max pool won */
    uint32_t forward_scratch, backward_scratch, gradients_at; /* training; gradients: of this operator, if layer by layer */
} ft_step;

typedef struct {
    ft_place *places; /* by tensor */
    ft_slot *slots;   /* by parameter */
    ft_step *steps;   /* by operator */
    uint32_t forward_floats;                         /* activations of a forward pass, per sample */
    uint32_t train_floats;                           /* all that train_at and its like reach */
    uint32_t activation_floats, gradient_floats;     /* the same without gradients of values and scratch, without scratch */
    uint32_t scratch_one, scratch_batch;             /* of forward passes: floats, for one sample and for a micro-batch */
    uint32_t first_op, first_param; /* what comes before is not trained (last_layers); both 0: all is */
    uint32_t held_count, stat_count, index_count, kept_count, label_bytes;
    uint32_t tile_floats, row_positions; /* score: gradient rows, positions of one row */
    ft_memory memory;
} ft_layout;

uint32_t ft_plan_table_bytes(const ft_blob *blob); /* lasting tables */
uint32_t ft_plan_bytes(const ft_blob *blob);       /* tables and what planning itself needs */
/* tables: ft_plan_bytes of 4-byte aligned memory; the first ft_plan_table_bytes must last as long as the layout.
 * node_bytes: the size of the node's own struct, counted in memory.node. */
ft_status ft_plan_layout(ft_layout *layout, const ft_blob *blob, const ft_config *config, void *tables,
                         uint32_t node_bytes);

/* Where the lasting tables lie; returns what is behind them. */
uint8_t *ft_plan_tables(ft_layout *layout, const ft_blob *blob, void *tables);

uint32_t ft_plan_first_value(const ft_layout *layout); /* the first float of weights that is trained */
ft_conv ft_plan_conv(const ft_blob *blob, const ft_op *op); /* the geometry of a conv2d */
uint32_t ft_plan_layer_param(const ft_blob *blob, uint32_t layer); /* parameter of a layer number; FT_NONE if none */
uint32_t ft_plan_tile_rows(uint32_t tile_bytes, uint32_t row_len, uint32_t rows);

#endif
