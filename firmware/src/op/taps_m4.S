/* The inner loops of taps_m4.c for ARMv7E-M and later with a single precision FPU: s0-s31 hold a tile of accumulators and
 * the piece of input that it meets. VMUL and VADD round twice, as C does; FT_FAST fuses them.
 * Every function takes one pointer to a job (taps_m4.c) and keeps the registers that the AAPCS asks it to keep. */
    .syntax unified
    .thumb
    .altmacro

#ifdef FT_FAST
#define FUSED 1
#else
#define FUSED 0
#endif

.macro function name
    .section .text.\name,"ax",%progbits
    .balign 4
    .global \name
    .type \name,%function
    .thumb_func
\name:
.endm

.macro enter
    push {r4-r11, lr}
    vpush {s16-s31}
.endm

.macro leave
    vpop {s16-s31}
    pop {r4-r11, pc}
.endm

/* n registers from s<at> on, from or to memory at base; on: base moves past it */
.macro load_ from, to, base
    .if \from == \to
    vldmia \base, {s\from}
    .else
    vldmia \base, {s\from-s\to}
    .endif
.endm
.macro load at, n, base
    load_ %(\at), %(\at+\n-1), \base
.endm
.macro load_on_ from, to, base
    .if \from == \to
    vldmia \base!, {s\from}
    .else
    vldmia \base!, {s\from-s\to}
    .endif
.endm
.macro load_on at, n, base
    load_on_ %(\at), %(\at+\n-1), \base
.endm
.macro store_on_ from, to, base
    .if \from == \to
    vstmia \base!, {s\from}
    .else
    vstmia \base!, {s\from-s\to}
    .endif
.endm
.macro store_on at, n, base
    store_on_ %(\at), %(\at+\n-1), \base
.endm

.macro mul_ a, x, w
    vmul.f32 s\a, s\x, s\w
.endm
.macro add_ a, x, y
    vadd.f32 s\a, s\x, s\y
.endm
.macro sub_ a, x, y
    vsub.f32 s\a, s\x, s\y
.endm
.macro fma_ a, x, w
    vfma.f32 s\a, s\x, s\w
.endm
.macro mla_ a, x, w
    vmla.f32 s\a, s\x, s\w
.endm

.macro fms_ a, x, w
    vfms.f32 s\a, s\x, s\w
.endm
.macro mls_ a, x, w
    vmls.f32 s\a, s\x, s\w
.endm

/* a[i] += x[i] w; x is lost */
.macro scale a, x, n, w
    .set i, 0
    .if FUSED
    .rept \n
    fma_ %(\a+i), %(\x+i), \w
    .set i, i+1
    .endr
    .else
    .rept \n
    mul_ %(\x+i), %(\x+i), \w
    .set i, i+1
    .endr
    .set i, 0
    .rept \n
    add_ %(\a+i), %(\a+i), %(\x+i)
    .set i, i+1
    .endr
    .endif
.endm

/* a[i] += x[i] w; x is kept. VMLA rounds the product before it adds: the bits of VMUL and VADD. */
.macro scale_keep a, x, n, w
    .set i, 0
    .rept \n
    .if FUSED
    fma_ %(\a+i), %(\x+i), \w
    .else
    mla_ %(\a+i), %(\x+i), \w
    .endif
    .set i, i+1
    .endr
.endm

/* a[i] += x[i] y[i]; x is lost */
.macro product a, x, y, n
    .set i, 0
    .if FUSED
    .rept \n
    fma_ %(\a+i), %(\x+i), %(\y+i)
    .set i, i+1
    .endr
    .else
    .rept \n
    mul_ %(\x+i), %(\x+i), %(\y+i)
    .set i, i+1
    .endr
    .set i, 0
    .rept \n
    add_ %(\a+i), %(\a+i), %(\x+i)
    .set i, i+1
    .endr
    .endif
.endm

/* a[i] += b[i] */
.macro sum a, b, n
    .set i, 0
    .rept \n
    add_ %(\a+i), %(\a+i), %(\b+i)
    .set i, i+1
    .endr
.endm

/* ---- forward: job { y, x, w, at, taps, bias, tiles, rows, x_skip, y_skip, pitch } ----
 * A tile is n1 outputs and, if n2, n2 more whose inputs follow (apart = 0) or lie one pitch further on (apart = 1).
 * r1 y, r2 x, r3 w, r4 at, r5 turns, r6 r7 addresses, r8 bias, r9 tiles left, r10 rows left, r11 first w, r12 pitch,
 * lr first at */
.macro one_tap n1, n2, apart, w
    .if \n2 == 0
    load \n1, \n1, r6
    scale 0, \n1, \n1, \w
    .elseif \apart
    load %(\n1+\n2), \n1, r6
    add r6, r6, r12
    scale 0, %(\n1+\n2), \n1, \w
    load %(\n1+\n2), \n2, r6
    scale \n1, %(\n1+\n2), \n2, \w
    .else
    load_on %(\n1+\n2), \n1, r6
    scale 0, %(\n1+\n2), \n1, \w
    load %(\n1+\n2), \n2, r6
    scale \n1, %(\n1+\n2), \n2, \w
    .endif
.endm

.macro two_taps n1, n2, apart
    ldrh r6, [r4], #2
    ldrh r7, [r4], #2
    vldmia r3!, {s30-s31}
    add r6, r2, r6, lsl #2
    one_tap \n1, \n2, \apart, 30
    add r6, r2, r7, lsl #2
    one_tap \n1, \n2, \apart, 31
.endm

/* deep: four taps a turn; an odd pair enters in its middle */
.macro forward name, n1, n2, apart, deep
    function \name
    enter
    ldr r1, [r0]
    ldr r2, [r0, #4]
    ldr r11, [r0, #8]
    ldr lr, [r0, #12]
    ldr r8, [r0, #20]
    ldr r10, [r0, #28]
    ldr r12, [r0, #40]
1:  ldr r9, [r0, #24]
2:  ldr r7, [r0, #16]
    load 0, %(\n1+\n2), r8
    mov r3, r11
    mov r4, lr
    .if \deep
    adds r5, r7, #2
    lsrs r5, r5, #2
    beq 5f
    tst r7, #2
    bne 4f
3:  two_taps \n1, \n2, \apart
4:  two_taps \n1, \n2, \apart
    .else
    lsrs r5, r7, #1
    beq 5f
3:  two_taps \n1, \n2, \apart
    .endif
    subs r5, r5, #1
    bne 3b
5:  ldr r7, [r0, #16]
    lsls r7, r7, #31
    beq 6f
    ldrh r6, [r4]
    vldr s30, [r3]
    add r6, r2, r6, lsl #2
    one_tap \n1, \n2, \apart, 30
6:  store_on 0, %(\n1+\n2), r1
    .if \apart == 0
    add r2, r2, #4*(\n1+\n2)
    .endif
    subs r9, r9, #1
    bne 2b
    ldr r6, [r0, #32]
    ldr r7, [r0, #36]
    add r2, r2, r6
    add r1, r1, r7
    subs r10, r10, #1
    bne 1b
    leave
    .size \name, .-\name
.endm

    forward ft_m4_forward_16, 8, 8, 0, 0
    forward ft_m4_forward_14, 14, 0, 0, 0
    forward ft_m4_forward_8, 8, 0, 0, 0
    forward ft_m4_forward_4, 4, 0, 0, 0
    forward ft_m4_forward_1, 1, 0, 0, 0
    forward ft_m4_forward_2x8, 8, 8, 1, 1
    forward ft_m4_forward_2x7, 7, 7, 1, 0

/* The same with taps in threes at p, p + 1, p + 2: one load of n + 2 inputs serves three. n <= 14. taps counts threes. */
.macro forward_triples name, n
    function \name
    enter
    ldr r1, [r0]
    ldr r2, [r0, #4]
    ldr r11, [r0, #8]
    ldr lr, [r0, #12]
    ldr r12, [r0, #16]
    ldr r8, [r0, #20]
    ldr r10, [r0, #28]
1:  ldr r9, [r0, #24]
2:  load 0, \n, r8
    mov r3, r11
    mov r4, lr
    mov r5, r12
3:  ldrh r6, [r4], #6
    vldmia r3!, {s31}
    add r6, r2, r6, lsl #2
    load \n, %(\n+2), r6
    scale_keep 0, \n, \n, 31
    vldmia r3!, {s31}
    scale_keep 0, %(\n+1), \n, 31
    vldmia r3!, {s31}
    scale 0, %(\n+2), \n, 31
    subs r5, r5, #1
    bne 3b
    store_on 0, \n, r1
    add r2, r2, #4*\n
    subs r9, r9, #1
    bne 2b
    ldr r6, [r0, #32]
    ldr r7, [r0, #36]
    add r2, r2, r6
    add r1, r1, r7
    subs r10, r10, #1
    bne 1b
    leave
    .size \name, .-\name
.endm

    forward_triples ft_m4_triples_14, 14
    forward_triples ft_m4_triples_8, 8

/* ---- input gradient: job { dx, dy, w, at, taps, -, tiles, rows, x_skip, y_skip } ----
 * r1 dx, r2 dy, r3 w, r4 at, r5 taps left, r6 dx now, r7 dy now, r8 tiles left, r9 rows left, r10 x_skip, r11 y_skip,
 * r12 tiles, lr rows */
.macro spread_piece n
    load 0, \n, r6
    load_on \n, \n, r7
    .if FUSED
    scale_keep 0, \n, \n, 31
    .else
    scale 0, \n, \n, 31
    .endif
    store_on 0, \n, r6
.endm

.macro spread name, n1, n2, single
    function \name
    enter
    ldr r1, [r0]
    ldr r2, [r0, #4]
    ldr r3, [r0, #8]
    ldr r4, [r0, #12]
    ldr r5, [r0, #16]
    ldr r12, [r0, #24]
    ldr lr, [r0, #28]
    ldr r10, [r0, #32]
    ldr r11, [r0, #36]
1:  ldrh r6, [r4], #2
    vldmia r3!, {s31}
    mov r7, r2
    add r6, r1, r6, lsl #2
    .if \single /* one tile a row: two rows a turn */
    adds r9, lr, #1
    lsrs r9, r9, #1
    tst lr, #1
    bne 3f
2:  spread_piece \n1
    add r6, r6, r10
    add r7, r7, r11
3:  spread_piece \n1
    add r6, r6, r10
    add r7, r7, r11
    subs r9, r9, #1
    bne 2b
    .else
    mov r9, lr
2:  mov r8, r12
3:  spread_piece \n1
    .if \n2
    spread_piece \n2
    .endif
    subs r8, r8, #1
    bne 3b
    add r6, r6, r10
    add r7, r7, r11
    subs r9, r9, #1
    bne 2b
    .endif
    subs r5, r5, #1
    bne 1b
    leave
    .size \name, .-\name
.endm

    spread ft_m4_spread_16, 8, 8, 0
    spread ft_m4_spread_14, 14, 0, 0
    spread ft_m4_spread_1x14, 14, 0, 1
    spread ft_m4_spread_8, 8, 0, 1
    spread ft_m4_spread_7, 7, 0, 1
    spread ft_m4_spread_4, 4, 0, 1
    spread ft_m4_spread_1, 1, 0, 1

/* ---- weight gradient: job { dw, dy, x, at, taps, -, eights, rows, x_skip, rest } ----
 * A row is `eights` pieces of 8 and `rest` more; two taps share each load of dy. Lanes: s0-s7 and s8-s15.
 * r0 rest, r1 dw, r2 dy, r3 x, r4 at, r5 taps left, r6 r7 x now, r8 dy now, r9 rows left, r10 rows, r11 x_skip,
 * r12 eights left, lr eights */
.macro pair_piece n
    load_on 16, \n, r8
    load_on 24, \n, r6
    product 0, 24, 16, \n
    load_on 24, \n, r7
    product 8, 24, 16, \n
.endm
.macro lone_piece n
    load_on 16, \n, r8
    load_on 24, \n, r6
    product 0, 24, 16, \n
.endm

.macro rest_at piece, n
    .short (.L\piece\()_\n - .L\piece\()_table) / 2
.endm
.macro rest_of piece, n
.L\piece\()_\n:
    \piece \n
    b .L\piece\()_0
.endm

/* a row of any width */
.macro row_any piece
    movs r12, lr
    beq 8f
9:  \piece 8
    subs r12, r12, #1
    bne 9b
8:  tbh [pc, r0, lsl #1]
.L\piece\()_table:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    rest_at \piece, \n
    .endr
    .irp n, 1, 2, 3, 5, 6, 7
    rest_of \piece, \n
    .endr
.L\piece\()_4:
    \piece 4
.L\piece\()_0:
.endm
.macro row_14 piece
    \piece 8
    \piece 6
.endm

.macro correlate name, row
    function \name
    enter
    ldr r1, [r0]
    ldr r2, [r0, #4]
    ldr r3, [r0, #8]
    ldr r4, [r0, #12]
    ldr r5, [r0, #16]
    ldr lr, [r0, #24]
    ldr r10, [r0, #28]
    ldr r11, [r0, #32]
    ldr r0, [r0, #36]
    subs r5, r5, #2
    blo 3f
1:  ldrh r6, [r4], #2
    ldrh r7, [r4], #2
    adr r12, 6f
    vldmia r12, {s0-s15}
    mov r8, r2
    mov r9, r10
    add r6, r3, r6, lsl #2
    add r7, r3, r7, lsl #2
2:  \row pair_piece
    add r6, r6, r11
    add r7, r7, r11
    subs r9, r9, #1
    bne 2b
    vldmia r1, {s16-s17}
    sum 0, 4, 4
    sum 8, 12, 4
    sum 0, 2, 2
    sum 8, 10, 2
    vadd.f32 s0, s0, s1
    vadd.f32 s8, s8, s9
    vadd.f32 s16, s16, s0
    vadd.f32 s17, s17, s8
    vstmia r1!, {s16-s17}
    subs r5, r5, #2
    bhs 1b
3:  adds r5, r5, #2
    beq 5f
    ldrh r6, [r4]
    adr r12, 6f
    vldmia r12, {s0-s7}
    mov r9, r10
    mov r8, r2
    add r6, r3, r6, lsl #2
4:  \row lone_piece
    add r6, r6, r11
    subs r9, r9, #1
    bne 4b
    vldr s16, [r1]
    sum 0, 4, 4
    sum 0, 2, 2
    vadd.f32 s0, s0, s1
    vadd.f32 s16, s16, s0
    vstr s16, [r1]
5:  leave
    .balign 4
6:  .fill 16, 4, 0
    .size \name, .-\name
.endm

    correlate ft_m4_correlate_14, row_14
    correlate ft_m4_correlate, row_any

/* ---- ft_lanes_sum(lanes, x, n): r0, r1, r2 ---- */
    function ft_lanes_sum
    vldmia r0, {s0-s7}
    vpush {s16-s23}
    subs r2, r2, #16
    blo 2f
1:  vldmia r1!, {s8-s23}
    sum 0, 8, 8
    sum 0, 16, 8
    subs r2, r2, #16
    bhs 1b
2:  adds r2, r2, #8
    bmi 3f
    vldmia r1!, {s8-s15}
    sum 0, 8, 8
    subs r2, r2, #8
3:  vstmia r0, {s0-s7}
    adds r2, r2, #8
    beq 5f
4:  vldmia r1!, {s8}
    vldr s0, [r0]
    vadd.f32 s0, s0, s8
    vstmia r0!, {s0}
    subs r2, r2, #1
    bne 4b
5:  vpop {s16-s23}
    bx lr
    .size ft_lanes_sum, .-ft_lanes_sum

/* ---- ft_zero(to, n) ---- */
    function ft_zero
    mov r2, #0
    mov r3, #0
    vmov s0, s1, r2, r3
    vmov s2, s3, r2, r3
    vmov s4, s5, r2, r3
    vmov s6, s7, r2, r3
    vmov s8, s9, r2, r3
    vmov s10, s11, r2, r3
    vmov s12, s13, r2, r3
    vmov s14, s15, r2, r3
    subs r1, r1, #16
    blo 2f
1:  vstmia r0!, {s0-s15}
    subs r1, r1, #16
    bhs 1b
2:  adds r1, r1, #16
    beq 4f
3:  str r2, [r0], #4
    subs r1, r1, #1
    bne 3b
4:  bx lr
    .size ft_zero, .-ft_zero

/* ---- ft_rows_copy(to, to_pitch, from, from_pitch, rows, cols): r4 rows, r5 cols; the skips replace the pitches ---- */
    function ft_rows_copy
    push {r4-r6, lr}
    ldr r4, [sp, #16]
    ldr r5, [sp, #20]
    cmp r4, #0
    beq 9f
    sub r1, r1, r5
    sub r3, r3, r5
    lsl r1, r1, #2
    lsl r3, r3, #2
    cmp r5, #14
    beq 7f
    cmp r5, #8
    beq 10f
1:  subs r6, r5, #16
    blo 3f
2:  vldmia r2!, {s0-s15}
    vstmia r0!, {s0-s15}
    subs r6, r6, #16
    bhs 2b
3:  lsls r12, r6, #29 /* bit 3 to carry, bit 2 to sign */
    bcc 4f
    vldmia r2!, {s0-s7}
    vstmia r0!, {s0-s7}
4:  tst r6, #4
    beq 5f
    vldmia r2!, {s0-s3}
    vstmia r0!, {s0-s3}
5:  ands r12, r6, #3
    beq 8f
6:  ldr lr, [r2], #4
    str lr, [r0], #4
    subs r12, r12, #1
    bne 6b
8:  add r0, r0, r1
    add r2, r2, r3
    subs r4, r4, #1
    bne 1b
    b 9f
7:  vldmia r2!, {s0-s13}
    vstmia r0!, {s0-s13}
    add r2, r2, r3
    add r0, r0, r1
    subs r4, r4, #1
    bne 7b
    b 9f
10: vldmia r2!, {s0-s7}
    vstmia r0!, {s0-s7}
    add r2, r2, r3
    add r0, r0, r1
    subs r4, r4, #1
    bne 10b
9:  pop {r4-r6, pc}
    .size ft_rows_copy, .-ft_rows_copy

/* ---- ft_m4_relu(y, x, n): n a multiple of 5. As integers: negative and not NaN becomes 0. QADD keeps the sign of
 * every number below zero and clears that of NaNs. ---- */
    function ft_m4_relu
    push {r4-r11, lr}
    ldr r12, =0x007FFFFF
1:  ldmia r1!, {r3-r7}
    qadd r8, r3, r12
    qadd r9, r4, r12
    qadd r10, r5, r12
    qadd r11, r6, r12
    qadd lr, r7, r12
    bic r3, r3, r8, asr #31
    bic r4, r4, r9, asr #31
    bic r5, r5, r10, asr #31
    bic r6, r6, r11, asr #31
    bic r7, r7, lr, asr #31
    stmia r0!, {r3-r7}
    subs r2, r2, #5
    bne 1b
    pop {r4-r11, pc}
    .ltorg
    .size ft_m4_relu, .-ft_m4_relu

/* ---- ft_m4_relu_backward(dx, dy, y, n): n a multiple of 4, y from a ReLU. dx = y != 0 ? dy : 0 ---- */
    function ft_m4_relu_backward
    push {r4-r11, lr}
1:  ldmia r2!, {r4-r7}
    ldmia r1!, {r8-r11}
    rsb r4, r4, #0
    rsb r5, r5, #0
    rsb r6, r6, #0
    rsb r7, r7, #0
    and r8, r8, r4, asr #31
    and r9, r9, r5, asr #31
    and r10, r10, r6, asr #31
    and r11, r11, r7, asr #31
    stmia r0!, {r8-r11}
    subs r3, r3, #4
    bne 1b
    pop {r4-r11, pc}
    .size ft_m4_relu_backward, .-ft_m4_relu_backward

/* ---- ft_m4_sgd(w, g, m, n, lr, momentum, decay): n a multiple of 8, not 0; g is lost.
 * r0-r3, s0-s2; w s8-s15, g s16-s23, m s24-s31 ---- */
    function ft_m4_sgd
    vpush {s16-s31}
1:  vldmia r0, {s8-s15}
    vldmia r1!, {s16-s23}
    vldmia r2, {s24-s31}
    scale_keep 16, 8, 8, 2
    .if FUSED
    scale_keep 16, 24, 8, 1
    vstmia r2!, {s16-s23}
    .set i, 0
    .rept 8
    fms_ %(8+i), %(16+i), 0
    .set i, i+1
    .endr
    .else
    .set i, 0
    .rept 8
    mul_ %(24+i), %(24+i), 1
    .set i, i+1
    .endr
    sum 24, 16, 8
    vstmia r2!, {s24-s31}
    .set i, 0
    .rept 8
    mls_ %(8+i), %(24+i), 0
    .set i, i+1
    .endr
    .endif
    vstmia r0!, {s8-s15}
    subs r3, r3, #8
    bne 1b
    vpop {s16-s31}
    bx lr
    .size ft_m4_sgd, .-ft_m4_sgd

/* ---- ft_m4_add(y, a, b, n): n a multiple of 8, not 0 ---- */
    function ft_m4_add
1:  vldmia r1!, {s0-s7}
    vldmia r2!, {s8-s15}
    sum 0, 8, 8
    vstmia r0!, {s0-s7}
    subs r3, r3, #8
    bne 1b
    bx lr
    .size ft_m4_add, .-ft_m4_add

.macro keep_larger best, x
    vcmp.f32 s\x, s\best
    vmrs APSR_nzcv, fpscr
    it gt
    vmovgt s\best, s\x
.endm
.macro keep_nan best, x
    vcmp.f32 s\x, s\x
    vmrs APSR_nzcv, fpscr
    it vs
    vmovvs s\best, s\x
.endm

/* ---- ft_halves_forward(y, x, width, n, rows): r0 y, r1 top, r5 bottom, r6 windows left, r4 rows, r12 skip ---- */
    function ft_halves_forward
    push {r4-r6, lr}
    ldr r4, [sp, #16]
    sub r12, r2, r3
    lsls r12, r12, #3
    lsls r2, r2, #2
1:  add r5, r1, r2
    subs r6, r3, #2
    blo 3f
2:  vldmia r1!, {s0-s3}
    vldmia r5!, {s4-s7}
    vadd.f32 s8, s0, s1
    vadd.f32 s9, s2, s3
    vadd.f32 s10, s4, s5
    vadd.f32 s11, s6, s7
    vadd.f32 s8, s8, s9
    vadd.f32 s10, s10, s11
    vadd.f32 s8, s8, s10
    vmov.f32 s9, s0
    vcmp.f32 s8, s8
    vmrs APSR_nzcv, fpscr
    vmov.f32 s10, s2
    bvs 6f
    keep_larger 9, 1
    keep_larger 10, 3
    keep_larger 9, 4
    keep_larger 10, 6
    keep_larger 9, 5
    keep_larger 10, 7
4:  vstmia r0!, {s9-s10}
    subs r6, r6, #2
    bhs 2b
3:  adds r6, r6, #2
    beq 5f
    vldmia r1!, {s0-s1}
    vldmia r5!, {s4-s5}
    vmov.f32 s9, s0
    keep_larger 9, 1
    keep_larger 9, 4
    keep_larger 9, 5
    keep_nan 9, 5
    keep_nan 9, 4
    keep_nan 9, 1
    keep_nan 9, 0
    vstmia r0!, {s9}
5:  add r1, r1, r12
    subs r4, r4, #1
    bne 1b
    pop {r4-r6, pc}
6:  keep_larger 9, 1 /* a NaN, or infinities of both signs */
    keep_larger 9, 4
    keep_larger 9, 5
    keep_nan 9, 5
    keep_nan 9, 4
    keep_nan 9, 1
    keep_nan 9, 0
    keep_larger 10, 3
    keep_larger 10, 6
    keep_larger 10, 7
    keep_nan 10, 7
    keep_nan 10, 6
    keep_nan 10, 3
    keep_nan 10, 2
    b 4b
    .size ft_halves_forward, .-ft_halves_forward

/* ---- ft_halves_backward(dx, dy, x, width, n, rows): r0 dx, r1 dy, r2 top, r6 bottom, r3 width, r10 width and one more,
 * r4 n, r5 rows, r7 windows left, r8 where, r9 zero, r11 second row of dx, r12 skip ---- */
    function ft_halves_backward
    push {r4-r11, lr}
    ldr r4, [sp, #36]
    ldr r5, [sp, #40]
    sub r12, r3, r4
    lsls r12, r12, #3
    lsls r3, r3, #2
    add r10, r3, #4
    mov r9, #0
1:  add r6, r2, r3
    add r11, r0, r3
    mov r7, r4
2:  vldmia r2!, {s0-s1}
    vldmia r6!, {s2-s3}
    ldr lr, [r1], #4
    mov r8, #0
    vcmp.f32 s1, s0
    vmrs APSR_nzcv, fpscr
    itt gt
    vmovgt.f32 s0, s1
    movgt r8, #4
    vcmp.f32 s2, s0
    vmrs APSR_nzcv, fpscr
    itt gt
    vmovgt.f32 s0, s2
    movgt r8, r3
    vcmp.f32 s3, s0
    vmrs APSR_nzcv, fpscr
    it gt
    movgt r8, r10
    strd r9, r9, [r0]
    strd r9, r9, [r11], #8
    str lr, [r0, r8]
    adds r0, r0, #8
    subs r7, r7, #1
    bne 2b
    add r0, r0, r12
    add r2, r2, r12
    subs r5, r5, #1
    bne 1b
    pop {r4-r11, pc}
    .size ft_halves_backward, .-ft_halves_backward
