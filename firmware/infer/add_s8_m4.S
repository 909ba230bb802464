/* The inner loops of add_s8_m4.c. */
    .syntax unified
    .thumb

/* One element: r0 y, r1 x, r2 x2, r4 the zero point of x before its scale, r5 m, r6 half a unit, r7 shift; of the sum r8 zero
 * point, r9 m, r10 what is added, r11 shift. */
.macro one shifted
    ldrsb r12, [r1], #1
    ldrsb lr, [r2], #1
    rsb r12, r4, r12, lsl #21
    smmulr r12, r12, r5
    .if \shifted
    add r12, r12, r12, asr #31
    add r12, r12, r6
    asr r12, r12, r7
    .endif
    add r12, r12, lr, lsl #19
    rsb r12, r8, r12, lsl #1
    smmulr r12, r12, r9
    add r12, r12, r12, asr #31
    add r12, r12, r10
    asr r12, r12, r11
    ssat r12, #8, r12
    strb r12, [r0], #1
.endm

.macro function name, shifted
    .section .text.\name,"ax",%progbits
    .balign 4
    .global \name
    .type \name,%function
    .thumb_func
\name:
    push {r4-r11, lr}
    ldr r12, [sp, #36]
    ldm r12, {r4-r11}
1:  one \shifted
    one \shifted
    one \shifted
    one \shifted
    subs r3, r3, #1
    bne 1b
    pop {r4-r11, pc}
.endm

/* void (int8_t *y, const int8_t *x, const int8_t *x2, uint32_t fours, const int32_t constants[8]); fours > 0 */
    function fti_add_shifted_s8, 1
    function fti_add_unshifted_s8, 0
