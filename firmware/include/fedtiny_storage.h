/* Storage that outlives power, as a port gives it: files, or flash sectors. */
#ifndef FEDTINY_STORAGE_H
#define FEDTINY_STORAGE_H

#include <stdint.h>

enum { FT_AREA_MODEL_0, FT_AREA_MODEL_1, FT_AREA_SAMPLES, FT_AREAS };

/* Each call returns 0 for success. What is erased reads as 0xFF; write() goes to bytes that were erased since, at and count are
 * multiples of 8. */
typedef struct {
    void *ctx;
    uint32_t bytes[FT_AREAS]; /* 0: there is none */
    int (*read)(void *ctx, uint32_t area, uint32_t at, void *to, uint32_t count);
    int (*write)(void *ctx, uint32_t area, uint32_t at, const void *from, uint32_t count);
    int (*erase)(void *ctx, uint32_t area);
} ft_storage;

#endif
