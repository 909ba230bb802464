/* Between the port's parts: the call into the emulator, and the counter of instructions. */
#ifndef FT_PORT_SEMIHOSTING_H
#define FT_PORT_SEMIHOSTING_H

#include <stdint.h>

uint32_t semihosting_call(uint32_t operation, const void *argument); /* one instruction of the architecture */
void count_start(void);

#endif
