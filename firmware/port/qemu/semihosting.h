/* Between the port's parts: the call into the emulator, and where the start-up code enters. */
#ifndef FT_PORT_SEMIHOSTING_H
#define FT_PORT_SEMIHOSTING_H

#include <stdint.h>

uint32_t semihosting_call(uint32_t operation, const void *argument); /* one instruction of the architecture */
void semihosting_run(void);                                         /* arguments, main, exit; never returns */
void semihosting_fault(void);                                       /* exit code 99 */
void count_start(void);

#endif
