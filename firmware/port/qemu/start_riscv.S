/* RISC-V: stack, global pointer, memory as C expects it; any exception ends the program with code 99. */
    .section .vectors, "ax"
    .globl start_reset
start_reset:
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    la sp, link_stack_end
    la t0, traps + 1 /* vectored */
    csrw mtvec, t0
    la t0, link_data_load
    la t1, link_data_start
    la t2, link_data_end
copy:
    bgeu t1, t2, clear
    lw t3, 0(t0)
    sw t3, 0(t1)
    addi t0, t0, 4
    addi t1, t1, 4
    j copy
clear:
    la t1, link_bss_start
    la t2, link_bss_end
next:
    bgeu t1, t2, go
    sw zero, 0(t1)
    addi t1, t1, 4
    j next
go:
    j start_program

/* By cause: exceptions are 0, the machine's external interrupt is 11. */
    .balign 64
    .option push
    .option norvc
traps:
    .rept 11
    j fault
    .endr
    j start_external
    .option pop

fault:
    la sp, link_stack_end
    j start_fault
    .weak start_external
    .set start_external, fault

/* The emulator knows the call by the two shifts around ebreak: none of the three may be compressed or cross a page. */
    .text
    .globl semihosting_call
    .type semihosting_call, @function
    .balign 16
semihosting_call:
    .option push
    .option norvc
    slli zero, zero, 0x1F
    ebreak
    srai zero, zero, 7
    .option pop
    ret
