/* Cortex-M: vectors, memory as C expects it, the floating-point unit on. Any fault ends the program with code 99. */
#include "../start.h"
#include "semihosting.h"

extern uint32_t link_stack_end[], link_data_start[], link_data_end[], link_data_load[], link_bss_start[], link_bss_end[];

void start_reset(void);

uint32_t semihosting_call(uint32_t operation, const void *argument)
{
    register uint32_t result __asm__("r0") = operation;
    register const void *block __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(result) : "r"(block) : "memory");
    return result;
}

void start_reset(void)
{
    volatile uint32_t *const coprocessor_access = (volatile uint32_t *)0xE000ED88u;
    *coprocessor_access |= 0xFu << 20;
    __asm__ volatile("dsb\n\tisb");
    for (uint32_t *to = link_data_start, *from = link_data_load; to < link_data_end;)
        *to++ = *from++;
    for (uint32_t *to = link_bss_start; to < link_bss_end;)
        *to++ = 0;
    start_program();
}

/* On a fresh stack: the old one may be what faulted. */
__attribute__((naked)) static void fault(void) { __asm__ volatile("ldr sp, =link_stack_end\n\tb start_fault"); }

__attribute__((weak, alias("fault"))) void start_tick(void);

/* Stack, reset, then every system exception, of which SysTick is the last. */
typedef void (*handler)(void);
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    handler entry[15];
} vectors = {link_stack_end, {start_reset, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault,
                              fault, start_tick}};
