/* STM32F405: the model's TIM2 ticks once in each emulated nanosecond. */
#include "../port.h"
#include "semihosting.h"
#include "ticks.h"

#define TIM2(offset) (*(volatile uint32_t *)(0x40000000u + (offset)))

void count_start(void)
{
    TIM2(0x2C) = 0xFFFFFFFFu; /* reload */
    TIM2(0x14) = 1;           /* take it now, from zero */
    TIM2(0x00) = 1;
}

uint64_t port_count(void)
{
    static uint64_t total;
    return ticks_instructions(&total, TIM2(0x24));
}
