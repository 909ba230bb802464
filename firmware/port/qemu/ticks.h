/* Ticks of a 32-bit timer as instructions. With icount an instruction takes PORT_NS nanoseconds of emulated time, a tick
 * PORT_TICK_NS <= PORT_NS / 2: the nearest whole number is exact. Valid for 2^32 ticks after the start. */
#ifndef FT_PORT_TICKS_H
#define FT_PORT_TICKS_H

#include <stdint.h>

static inline uint64_t ticks_instructions(uint32_t ticks)
{
    return ((uint64_t)ticks * PORT_TICK_NS + PORT_NS / 2) / PORT_NS;
}

#endif
