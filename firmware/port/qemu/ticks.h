/* Ticks of a 32-bit timer as instructions. With icount an instruction takes PORT_NS nanoseconds of emulated time, a tick
 * PORT_TICK_NS <= PORT_NS / 2: the nearest whole number is exact. The timer may go round: once at most between two calls. */
#ifndef FT_PORT_TICKS_H
#define FT_PORT_TICKS_H

#include <stdint.h>

/* The instructions since the start. total: all ticks so far, 0 at the start; ticks: what the timer says now. */
static inline uint64_t ticks_instructions(uint64_t *total, uint32_t ticks)
{
    *total += (uint32_t)(ticks - (uint32_t)*total);
    return (*total * PORT_TICK_NS + PORT_NS / 2) / PORT_NS;
}

#endif
