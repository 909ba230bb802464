/* A few bytes that outlive a loss of power: two halves of storage, written in turn. Power that fails while a record is saved
 * leaves the old one or the new one.
 *
 * A half is a file, or a flash sector that is erased as a whole; it has room for `slots` slots of RECORD_SLOT bytes:
 *   0 u8[4] "FTRC" | 4 u32 sequence, +1 with each save | 8 u32 length | 12 the record, then zeros | 124 u32 CRC-32 of 0..123
 * Integers are little-endian, the CRC is zlib's. The valid slot with the largest sequence counts. */
#ifndef FT_PORT_RECORD_H
#define FT_PORT_RECORD_H

#include <stdint.h>

enum { RECORD_SLOT = 128, RECORD_BYTES = 112 /* the longest record */ };

/* Each returns 0 for success. write() goes to a slot that was erased since; what is erased reads as 0xFF, and where a half has
 * one slot, writing may replace it and erase() do nothing. */
typedef struct {
    void *ctx;
    uint32_t slots; /* in each half */
    int (*read)(void *ctx, uint32_t half, uint32_t slot, uint8_t *to);
    int (*write)(void *ctx, uint32_t half, uint32_t slot, const uint8_t *from);
    int (*erase)(void *ctx, uint32_t half);
} record_storage;

uint32_t record_load(const record_storage *storage, void *to, uint32_t capacity); /* its bytes; 0: there is none that fits */
int record_save(const record_storage *storage, const void *from, uint32_t bytes); /* 0 = it is there, read back and compared */

#endif
