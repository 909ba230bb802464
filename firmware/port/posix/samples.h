/* A data source over arrays in memory, for hosts: x (count, size) floats, labels (count). */
#ifndef FT_SAMPLES_H
#define FT_SAMPLES_H

#include "fedtiny.h"

typedef struct {
    const float *x;
    const uint16_t *labels;
    uint32_t size; /* floats of one sample */
} ft_samples;

/* Hands the arrays to a node; samples and arrays must outlive it. */
ft_status ft_samples_use(ft_node *node, ft_samples *samples, uint32_t count, uint32_t dev_count);

#endif
