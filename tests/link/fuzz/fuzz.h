/* The fuzz targets of the wire: each takes one input. What must hold besides the sanitizers' rules is checked with abort(). */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define HOLDS(what) ((what) ? (void)0 : abort())

enum { FUZZ_MOST = 1 << 14 }; /* bytes of the longest input */

/* What is left of an input; it takes itself apart from the front. */
typedef struct {
    const uint8_t *at;
    size_t left;
} fuzz_input;

static inline uint8_t fuzz_byte(fuzz_input *in)
{
    return in->left ? (in->left--, *in->at++) : 0;
}

static inline uint32_t fuzz_number(fuzz_input *in, uint32_t bytes) /* little-endian */
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < bytes; i++)
        value |= (uint32_t)fuzz_byte(in) << 8 * i;
    return value;
}

/* The next `most` bytes, or what is left, in memory that ends where they end: free it. */
uint8_t *fuzz_piece(fuzz_input *in, size_t most, size_t *count);

/* decoders.c */
void fuzz_message(fuzz_input in);
void fuzz_number_list(fuzz_input in);
void fuzz_cobs(fuzz_input in);
void fuzz_mask(fuzz_input in);
void fuzz_samples(fuzz_input in);
void fuzz_record(fuzz_input in);
void fuzz_topic(fuzz_input in);
/* ends.c: a node's end without the core */
void fuzz_frame(fuzz_input in);
void fuzz_handshake(fuzz_input in);
void fuzz_transfer(fuzz_input in);
/* saver.c: a node's service over storage */
void fuzz_saver(fuzz_input in);
/* service.c: a whole node */
void fuzz_values(fuzz_input in);
void fuzz_line(fuzz_input in);
void fuzz_session(fuzz_input in);
void fuzz_task(fuzz_input in);

#endif
