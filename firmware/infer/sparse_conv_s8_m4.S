/* The inner loop of sparse_conv_s8_m4.c. */
    .syntax unified
    .thumb

/* The frame: what fti_sparse_row has, in its order. */
    .equ TAPS, 0
    .equ X, 4
    .equ Y, 8
    .equ Y2, 12
    .equ TILES, 20
    .equ M, 24
    .equ LOW, 40
    .equ ZEROS, 48
    .equ FRAME, 80

/* r0 taps, r1 x; two 64-bit sums for each of four words in r2-r9. */
.macro tap
    ldrd r12, lr, [r11]
    smlal r2, r3, r12, r10
    smlal r4, r5, lr, r10
    ldrd r12, lr, [r11, #8]
    smlal r6, r7, r12, r10
    smlal r8, r9, lr, r10
.endm

/* The two sums of a 64-bit register, 23 bits apart. */
.macro part low, high
    adds r12, \low, #0x400000
    adc \high, \high, #0
    lsrs r12, r12, #23
    orr \high, r12, \high, lsl #9
    sbfx \low, \low, #0, #23
.endm

.macro narrow sum
    add \sum, lr, \sum, lsl #1
    smmulr \sum, \sum, r10
    add \sum, \sum, \sum, asr #31
    add \sum, \sum, r12
    asr \sum, \sum, r11
.endm

.macro clamp value
    cmp \value, r12
    it lt
    movlt \value, r12
    cmp \value, lr
    it gt
    movgt \value, lr
.endm

    .section .text.fti_sparse_tiles_s8,"ax",%progbits
    .balign 4
    .global fti_sparse_tiles_s8
    .type fti_sparse_tiles_s8,%function
    .thumb_func
fti_sparse_tiles_s8:
    push {r4-r11, lr}
    sub sp, sp, #FRAME
    ldm r0!, {r1-r12}
    stm sp, {r1-r12}
    mov r2, #0
    mov r3, #0
    add r0, sp, #ZEROS
    strd r2, r3, [r0]
    strd r2, r3, [r0, #8]
    strd r2, r3, [r0, #16]
    strd r2, r3, [r0, #24]
    ldr r1, [sp, #X]

.Ltile:
    add r0, sp, #ZEROS
    ldm r0, {r2-r9}
    ldr r0, [sp, #TAPS]
    b .Lenter
.Lpair:
    tap
    ldrd r11, r10, [r0], #8
    add r11, r11, r1
    tap
.Lenter:
    ldrd r11, r10, [r0], #8
    adds r11, r11, r1
    bcc .Lpair

    part r2, r3
    part r4, r5
    part r6, r7
    part r8, r9
    add r0, sp, #M
    ldm r0!, {r10, r11, r12, lr}
    narrow r2
    narrow r3
    narrow r4
    narrow r5
    narrow r6
    narrow r7
    narrow r8
    narrow r9
    ldrd r12, lr, [sp, #LOW]
    sub r10, lr, r12
    cmp r10, #255
    bne .Lclamp
    ssat r2, #8, r2
    ssat r3, #8, r3
    ssat r4, #8, r4
    ssat r5, #8, r5
    ssat r6, #8, r6
    ssat r7, #8, r7
    ssat r8, #8, r8
    ssat r9, #8, r9
.Lstore:
    add r0, sp, #Y
    ldm r0, {r10, r11, r12}
    strb r3, [r11]
    strb r5, [r11, r12]
    add r11, r11, r12, lsl #1
    strb r7, [r11]
    strb r9, [r11, r12]
    add r11, r11, r12, lsl #1
    strb r2, [r10]
    strb r4, [r10, r12]
    add r10, r10, r12, lsl #1
    strb r6, [r10]
    strb r8, [r10, r12]
    add r10, r10, r12, lsl #1
    strd r10, r11, [sp, #Y]
    add r1, r1, #16
    ldr r0, [sp, #TILES]
    subs r0, r0, #1
    str r0, [sp, #TILES]
    bne .Ltile
    add sp, sp, #FRAME
    pop {r4-r11, pc}

.Lclamp:
    clamp r2
    clamp r3
    clamp r4
    clamp r5
    clamp r6
    clamp r7
    clamp r8
    clamp r9
    b .Lstore

/* Words of four channels: r0 where the first goes, r1 r2 samples of both rows, r4 a plane, r5 three planes. */
.macro word byte, to:vararg
    sxtb r6, r12, ror #\byte
    sxtb r7, lr, ror #\byte
    add r6, r6, r7, lsl #23
    str r6, \to
.endm

/* void fti_sparse_pairs_s8(int32_t *to, const int8_t *x, const int8_t *x2, uint32_t fours, uint32_t plane_bytes) */
    .section .text.fti_sparse_pairs_s8,"ax",%progbits
    .balign 4
    .global fti_sparse_pairs_s8
    .type fti_sparse_pairs_s8,%function
    .thumb_func
fti_sparse_pairs_s8:
    push {r4-r7, lr}
    ldr r4, [sp, #20]
    add r5, r4, r4, lsl #1
.Lfour:
    ldr r12, [r1], #4
    ldr lr, [r2], #4
    word 0, [r0]
    word 8, [r0, r4]
    word 16, [r0, r4, lsl #1]
    word 24, [r0, r5]
    add r0, r0, r4, lsl #2
    subs r3, r3, #1
    bne .Lfour
    pop {r4-r7, pc}
