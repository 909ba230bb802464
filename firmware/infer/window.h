/* Where a kernel's window lies over a map: taps [from, to) of an axis are inside. */
#ifndef FTI_WINDOW_H
#define FTI_WINDOW_H

#include <stdint.h>

typedef struct {
    int32_t at; /* position of tap 0; may lie outside */
    uint32_t from, to;
} fti_span;

static inline fti_span fti_window(uint32_t out, uint32_t stride, uint32_t before, uint32_t taps, uint32_t dilation,
                                  uint32_t size)
{
    fti_span s = {(int32_t)(out * stride) - (int32_t)before, 0, taps};
    while (s.from < s.to && s.at + (int32_t)(s.from * dilation) < 0)
        s.from++;
    while (s.to > s.from && s.at + (int32_t)((s.to - 1) * dilation) >= (int32_t)size)
        s.to--;
    return s;
}

#endif
