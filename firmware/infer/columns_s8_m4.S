/* The inner loops of columns_s8_m4.c for Cortex-M with the DSP extension. Offsets of fti_op are checked in that file. */
    .syntax unified
    .thumb

    .equ OP_WEIGHT, 4
    .equ OP_BIAS, 8
    .equ OP_MULTIPLIER, 12
    .equ OP_SHIFT, 16
    .equ OP_YC, 46
    .equ OP_Y_ZERO, 64
    .equ OP_LOW, 68
    .equ OP_HIGH, 72

/* The frame of fti_columns_s8. */
    .equ Y0, 0
    .equ Y1, 4
    .equ X0, 8
    .equ X1, 12
    .equ QUADS, 16
    .equ BIAS, 20
    .equ MULTIPLIER, 24
    .equ SHIFT, 28
    .equ LEFT, 32
    .equ ZERO, 36
    .equ LOW, 40
    .equ HIGH, 44
    .equ FRAME, 48

.macro function name
    .section .text.\name,"ax",%progbits
    .balign 4
    .global \name
    .type \name,%function
    .thumb_func
\name:
.endm

/* Four products of each of two channels with each of two columns. r0 weights, r1 r2 columns, r8 r9 the first channel's sums,
 * r10 r11 the second's. */
.macro quad
    ldrd r4, r5, [r0], #8
    ldrd r12, lr, [r1], #8
    sxtb16 r6, r4
    sxtb16 r4, r4, ror #8
    sxtb16 r7, r5
    sxtb16 r5, r5, ror #8
    smlad r8, r6, r12, r8
    smlad r10, r7, r12, r10
    smlad r8, r4, lr, r8
    smlad r10, r5, lr, r10
    ldrd r12, lr, [r2], #8
    smlad r9, r6, r12, r9
    smlad r11, r7, r12, r11
    smlad r9, r4, lr, r9
    smlad r11, r5, lr, r11
.endm

/* One of a channel's sums to int8, not clamped: m, half a unit with the zero point before the shift, the right shift. */
.macro narrow sum, m, half, shift
    lsls \sum, \sum, #1
    smmulr \sum, \sum, \m
    add \sum, \sum, \sum, asr #31
    add \sum, \sum, \half
    asr \sum, \sum, \shift
.endm

/* The same of both of a channel's sums; shift, as stored, comes in \shift and is lost; r3 is 2 zero + 1. Shifts to the left,
 * none and long ones go another way. */
.macro both a, b, m, shift, wide, done
    mvn r12, \shift
    rsb \shift, \shift, #0
    cmp r12, #22
    bhs \wide
    lsl r1, r3, r12
    narrow \a, \m, r1, \shift
    narrow \b, \m, r1, \shift
\done:
.endm

/* The same for any shift. */
.macro any sum, m, shift
    cmp \shift, #0
    bgt 1f
    rsb r12, \shift, #0
    lsl \sum, \sum, r12
    smull r12, lr, \sum, \m
    adds r12, r12, #0x40000000
    adc lr, lr, #0
    ssat lr, #30, lr
    lsl \sum, lr, #1
    orr \sum, \sum, r12, lsr #31
    b 2f
1:  lsls \sum, \sum, #1
    smmulr \sum, \sum, \m
    add \sum, \sum, \sum, asr #31
    mov r12, #1
    sub lr, \shift, #1
    lsl r12, r12, lr
    add \sum, \sum, r12
    asr \sum, \sum, \shift
2:  add \sum, \sum, r3, asr #1
.endm

.macro clamp value
    cmp \value, r6
    it lt
    movlt \value, r6
    cmp \value, r7
    it gt
    movgt \value, r7
.endm

/* void fti_columns_s8(int8_t *y0, int8_t *y1, const int16_t *x0, const int16_t *x1, uint32_t quads, const fti_op *op) */
function fti_columns_s8
    push {r4-r11, lr}
    ldr r4, [sp, #36]
    ldr r5, [sp, #40]
    sub sp, sp, #FRAME
    stm sp, {r0-r4}
    ldr r0, [r5, #OP_WEIGHT]
    ldr r6, [r5, #OP_BIAS]
    str r6, [sp, #BIAS]
    ldr r6, [r5, #OP_MULTIPLIER]
    str r6, [sp, #MULTIPLIER]
    ldr r6, [r5, #OP_SHIFT]
    str r6, [sp, #SHIFT]
    ldrh r6, [r5, #OP_YC]
    str r6, [sp, #LEFT]
    ldr r6, [r5, #OP_Y_ZERO]
    lsls r6, r6, #1
    add r6, r6, #1
    str r6, [sp, #ZERO]
    ldr r6, [r5, #OP_LOW]
    str r6, [sp, #LOW]
    ldr r6, [r5, #OP_HIGH]
    str r6, [sp, #HIGH]

.Lpair:
    add r4, sp, #X0
    ldm r4, {r1-r3}
    ldr r4, [sp, #BIAS]
    ldr r5, [sp, #LEFT]
    mov r8, #0
    mov r10, #0
    cbz r4, .Lbiased
    ldr r8, [r4], #4
    cmp r5, #1
    it ne
    ldrne r10, [r4], #4
    str r4, [sp, #BIAS]
.Lbiased:
    mov r9, r8
    mov r11, r10
    lsrs r3, r3, #1
    bcc .Ltwo
    quad
    cbz r3, .Lsummed
.Ltwo:
    quad
    quad
    subs r3, r3, #1
    bne .Ltwo
.Lsummed:
    ldr r7, [sp, #LEFT]
    ldrd r1, r2, [sp, #MULTIPLIER]
    ldr r4, [r1], #4
    ldrsb r6, [r2], #1
    ldr r3, [sp, #ZERO]
    cmp r7, #1
    beq .Llast
    ldr r5, [r1], #4
    ldrsb r7, [r2], #1
    strd r1, r2, [sp, #MULTIPLIER]
    both r8, r9, r4, r6, .Lwide_first, .Lfirst
    both r10, r11, r5, r7, .Lwide_second, .Lsecond
    ldrd r4, r5, [sp, #Y0]
    ldrd r6, r7, [sp, #LOW]
    sub r12, r7, r6
    cmp r12, #255
    bne .Lclamp
    ssat r8, #8, r8
    ssat r9, #8, r9
    ssat r10, #8, r10
    ssat r11, #8, r11
.Lstore:
    strb r10, [r4, #1]
    strb r11, [r5, #1]
    strb r8, [r4], #2
    strb r9, [r5], #2
    strd r4, r5, [sp, #Y0]
    ldr r4, [sp, #LEFT]
    subs r4, r4, #2
    str r4, [sp, #LEFT]
    bne .Lpair
.Lend:
    add sp, sp, #FRAME
    pop {r4-r11, pc}

.Lclamp:
    clamp r8
    clamp r9
    clamp r10
    clamp r11
    b .Lstore

.Llast:
    both r8, r9, r4, r6, .Lwide_last, .Lonly
    ldrd r4, r5, [sp, #Y0]
    ldrd r6, r7, [sp, #LOW]
    clamp r8
    clamp r9
    strb r8, [r4]
    strb r9, [r5]
    b .Lend

.Lwide_first:
    any r8, r4, r6
    any r9, r4, r6
    b .Lfirst
.Lwide_second:
    any r10, r5, r7
    any r11, r5, r7
    b .Lsecond
.Lwide_last:
    any r8, r4, r6
    any r9, r4, r6
    b .Lonly

/* void fti_dot_s8(int32_t sums[2], const int8_t *w, const int16_t *x, uint32_t quads): adds; returns where w ends */
function fti_dot_s8
    push {r4-r9, lr}
    ldrd r8, r9, [r0]
.Lquad:
    ldrd r4, r5, [r1], #8
    ldrd r12, lr, [r2], #8
    sxtb16 r6, r4
    sxtb16 r4, r4, ror #8
    sxtb16 r7, r5
    sxtb16 r5, r5, ror #8
    smlad r8, r6, r12, r8
    smlad r9, r7, r12, r9
    smlad r8, r4, lr, r8
    smlad r9, r5, lr, r9
    subs r3, r3, #1
    bne .Lquad
    strd r8, r9, [r0]
    mov r0, r1
    pop {r4-r9, pc}

/* void fti_widen_s8(int16_t *to, const int8_t *from, uint32_t rows, uint32_t n, uint32_t step, int32_t zero) */
function fti_widen_s8
    push {r4-r11, lr}
    ldrd r10, r11, [sp, #36]
    rsb r11, r11, #0
    pkhbt r12, r11, r11, lsl #16
    sub r10, r10, r3
.Lrow:
    orr r4, r0, r1
    tst r4, #3
    mov lr, r3
    bne .Lfours
    subs lr, lr, #8
    blo .Leights_end
.Leights:
    ldm r1!, {r4, r5}
    sxtab16 r6, r12, r4
    sxtab16 r7, r12, r4, ror #8
    sxtab16 r8, r12, r5
    sxtab16 r9, r12, r5, ror #8
    pkhbt r4, r6, r7, lsl #16
    pkhtb r5, r7, r6, asr #16
    pkhbt r6, r8, r9, lsl #16
    pkhtb r7, r9, r8, asr #16
    stm r0!, {r4-r7}
    subs lr, lr, #8
    bhs .Leights
.Leights_end:
    adds lr, lr, #8
    beq .Lrow_end
.Lfours:
    subs lr, lr, #4
    blo .Lfours_end
.Lfour:
    ldr r4, [r1], #4
    sxtab16 r6, r12, r4
    sxtab16 r7, r12, r4, ror #8
    pkhbt r4, r6, r7, lsl #16
    pkhtb r5, r7, r6, asr #16
    str r4, [r0], #4
    str r5, [r0], #4
    subs lr, lr, #4
    bhs .Lfour
.Lfours_end:
    adds lr, lr, #4
    beq .Lrow_end
.Lone:
    ldrsb r4, [r1], #1
    add r4, r4, r11
    strh r4, [r0], #2
    subs lr, lr, #1
    bne .Lone
.Lrow_end:
    add r1, r1, r10
    subs r2, r2, #1
    bne .Lrow
    pop {r4-r11, pc}
