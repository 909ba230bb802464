/* MPS2 boards: CMSDK timer 0, which counts down. PORT_TIMER: its address. */
#include "../port.h"
#include "semihosting.h"
#include "ticks.h"

#define TIMER(offset) (*(volatile uint32_t *)(PORT_TIMER + (offset)))

void count_start(void)
{
    TIMER(0x8) = 0xFFFFFFFFu; /* reload */
    TIMER(0x4) = 0xFFFFFFFFu; /* value */
    TIMER(0x0) = 1;
}

uint64_t port_count(void)
{
    static uint64_t total;
    return ticks_instructions(&total, 0xFFFFFFFFu - TIMER(0x4));
}
