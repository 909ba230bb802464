/* From the start-up code to main, on the chip itself; a fault starts it anew. */
#include "../port.h"
#include "../start.h"
#include "registers.h"

int main(int argc, char **argv);
extern char link_memory_start[], link_memory_end[];

void *port_memory(uint32_t *bytes)
{
    *bytes = (uint32_t)(link_memory_end - link_memory_start);
    return link_memory_start;
}

void start_program(void)
{
    static char *none[] = {"node", 0};
    main(1, none);
    start_fault();
}

void start_fault(void)
{
    __asm__ volatile("dsb");
    SCB_AIRCR = 0x05FA0004u;
    for (;;)
        ;
}
