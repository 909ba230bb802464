/* Where the start-up code enters what was linked to it. Interrupt handlers that a program lacks end in start_fault. */
#ifndef FT_PORT_START_H
#define FT_PORT_START_H

void start_program(void); /* memory is as C expects it; never returns */
__attribute__((used)) void start_fault(void);   /* after a fault, on a fresh stack; never returns */

void start_tick(void);     /* Cortex-M: SysTick. Other interrupts: a table of handlers in the section .vectors.interrupts */
void start_external(void); /* RISC-V: machine external interrupt, __attribute__((interrupt)) */

#endif
