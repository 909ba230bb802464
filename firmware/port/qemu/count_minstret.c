/* RISC-V: the counter of retired instructions. */
#include "../port.h"
#include "semihosting.h"

void count_start(void) { __asm__ volatile("csrw minstret, zero\n\tcsrw minstreth, zero"); }

uint64_t port_count(void)
{
    uint32_t high, low, again;
    do
        __asm__ volatile("csrr %0, minstreth\n\tcsrr %1, minstret\n\tcsrr %2, minstreth"
                         : "=r"(high), "=r"(low), "=r"(again));
    while (high != again);
    return (uint64_t)high << 32 | low;
}
