/* Milliseconds by SysTick, and sleep, on any Cortex-M. */
#ifndef FT_PORT_SYSTICK_H
#define FT_PORT_SYSTICK_H

#include <stdint.h>

void systick_start(uint32_t processor_hz);

#endif
