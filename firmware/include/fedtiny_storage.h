/* Storage that outlives power, as a port gives it: files, or flash sectors. */
#ifndef FEDTINY_STORAGE_H
#define FEDTINY_STORAGE_H

#include "fedtiny_wire.h"

#ifdef __cplusplus
extern "C" {
#endif

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

/* Samples that a host sends go to FT_AREA_SAMPLES and not into the service's memory, of which this takes FT_SERVICE_STORED bytes. Called
 * after ft_service_start and before the wire starts; the storage outlives the service. false: there is neither; they go into memory. */
enum { FT_SERVICE_STORED = 1088 };
bool ft_service_store_samples(ft_service *service, const ft_storage *storage);

#ifdef __cplusplus
}
#endif
#endif
