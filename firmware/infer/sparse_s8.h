/* Pruned weights: for each output channel a u16, the number of entries, then entries of two bytes: the step from the last
 * entry's index (from 0 at first) to this one's, and the weight. An index is a position in (kh, kw, xc). Where a step takes
 * more than 255 an entry with weight 0 stands between. */
#ifndef FTI_SPARSE_S8_H
#define FTI_SPARSE_S8_H

#include <stdint.h>

#include "fedtiny_infer.h"

typedef struct {
    uint32_t at; /* bytes from the output pixel's place in the planes */
    int32_t w;
} fti_tap;

/* A sparse convolution goes over its map in bands of 2 a output rows (op->a). The band's input is copied into planes, one a
 * channel: rows of `phases` pieces of `pitch` samples, piece p with the columns p, p + sw, ... counted from the map's padded
 * left edge; what lies outside of the map is the zero point. A plane of `rows` bytes serves the portable kernel; the M4's
 * has half_rows of words, each two samples, a sh rows apart. work: places of indices (u16), taps of one channel, planes. */
typedef struct {
    uint32_t depth, phases, pitch, rows, half_rows, places_bytes, taps_bytes, work_bytes;
} fti_bands;

static inline fti_bands fti_bands_of(const fti_op *op)
{
    const uint32_t reach_w = (op->kw - 1u) * op->dw, reach_h = (op->kh - 1u) * op->dh, a = (uint32_t)op->a;
    fti_bands b;
    b.depth = (uint32_t)op->kh * op->kw * op->xc;
    b.phases = op->sw < reach_w + 1 ? op->sw : reach_w + 1;
    b.pitch = (op->yw > 4 ? op->yw : 4) - 1u + reach_w / op->sw + 1;
    b.rows = (2 * a - 1) * op->sh + reach_h + 1;
    b.half_rows = (a - 1) * op->sh + reach_h + 1;
    b.places_bytes = (2 * b.depth + 3) / 4 * 4;
    b.taps_bytes = ((uint32_t)op->b + 2) * sizeof(fti_tap);
    const uint32_t bytes = b.rows * b.phases * b.pitch * op->xc, words = 4 * b.half_rows * b.phases * b.pitch * op->xc;
    b.work_bytes = b.places_bytes + b.taps_bytes + (bytes > words ? bytes : words);
    return b;
}

/* places[k]: where sample k of a window lies in planes of `rows` rows, in samples. */
static inline void fti_places(uint16_t *places, const fti_op *op, const fti_bands *b, uint32_t rows)
{
    for (uint32_t i = 0; i < op->kh; i++)
        for (uint32_t j = 0; j < op->kw; j++) {
            const uint32_t col = j * op->dw, phase = col % op->sw;
            uint32_t at = (i * op->dh * b->phases + phase) * b->pitch + col / op->sw;
            for (uint32_t c = 0; c < op->xc; c++, at += rows * b->phases * b->pitch)
                *places++ = (uint16_t)at;
        }
}

/* One channel's taps, each place times `size`; returns their number and moves *stream past them. */
static inline uint32_t fti_taps(fti_tap *taps, const uint8_t **stream, const uint16_t *places, uint32_t size)
{
    const uint8_t *from = *stream;
    const uint32_t n = from[0] | (uint32_t)from[1] << 8;
    from += 2;
    for (uint32_t i = 0; i < n; i++, from += 2) {
        places += from[0];
        taps[i].at = *places * size;
        taps[i].w = (int8_t)from[1];
    }
    *stream = from;
    return n;
}

#endif
