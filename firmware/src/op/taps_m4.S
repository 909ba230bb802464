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
.macro store_ from, to, base
    .if \from == \to
    vstmia \base, {s\from}
    .else
    vstmia \base, {s\from-s\to}
    .endif
.endm
.macro store at, n, base
    store_ %(\at), %(\at+\n-1), \base
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

/* Where taps_m4.h's job keeps what the walks below read. */
    .equ TO, 0
    .equ FROM, 4
    .equ W, 8
    .equ TAPS, 16
    .equ BIAS, 20
    .equ STRIDE, 24
    .equ TILES, 28
    .equ ROWS, 32
    .equ STEP, 36
    .equ SKIP, 44
    .equ RUN, 52
    .equ REST, 60

/* Sixteen times the bias on the stack: what a tile's sums start with. */
.macro enter_forward
    enter
    ldr r1, [r0, #BIAS]
    mov r2, r1
    mov r3, r1
    mov r4, r1
    push {r1-r4}
    push {r1-r4}
    push {r1-r4}
    push {r1-r4}
    ldrd r1, r2, [r0, #TO]
    ldr r9, [r0, #ROWS]
.endm
.macro leave_forward
    add sp, sp, #64
    leave
.endm

/* ---- forward: tiles of two runs of n outputs. A turn is two taps, or four where it is deep; what is no whole turn enters in
 * its middle. r1 y, r2 x, r3 w, r4 at, r5 turns, r6 r7 addresses, r8 r9 tiles and rows left, r12 from run to run of x,
 * lr stride ---- */
.macro tap n, at, w
    mla r6, \at, lr, r2
    load 16, \n, r6
    scale 0, 16, \n, \w
    add r6, r6, r12
    load 16, \n, r6
    scale \n, 16, \n, \w
.endm
.macro fetch_two
    ldrh r6, [r4], #2
    ldrh r7, [r4], #2
    vldmia r3!, {s30-s31}
.endm

.macro forward name, n, deep
    function \name
    enter_forward
    ldr lr, [r0, #STRIDE]
    ldr r12, [r0, #RUN]
1:  ldr r8, [r0, #TILES]
2:  ldrd r3, r4, [r0, #W]
    ldr r5, [r0, #TAPS]
    load 0, %(2*\n), sp
    lsls r7, r5, #31 /* bit 1 to carry, bit 0 to sign */
    add r5, r5, #1+2*\deep
    mov r5, r5, lsr #1+\deep
    bpl 3f
    ldrh r7, [r4], #2
    vldmia r3!, {s31}
    .if \deep
    bcc 6f
    .endif
    b 4f
3:  .if \deep
    bcs 5f
    .endif
31: fetch_two
    tap \n, r6, 30
4:  tap \n, r7, 31
    .if \deep
5:  fetch_two
    tap \n, r6, 30
6:  tap \n, r7, 31
    .endif
    subs r5, r5, #1
    bne 31b
    store 0, \n, r1
    ldr r6, [r0, #RUN+4]
    add r1, r1, r6
    store \n, \n, r1
    ldrd r6, r7, [r0, #STEP]
    add r2, r2, r6
    add r1, r1, r7
    subs r8, r8, #1
    bne 2b
    ldrd r6, r7, [r0, #SKIP]
    add r2, r2, r6
    add r1, r1, r7
    subs r9, r9, #1
    bne 1b
    leave_forward
    .size \name, .-\name
.endm

    forward ft_m4_forward_8, 8, 1
    forward ft_m4_forward_4, 4, 0

/* ---- forward with taps in threes at p, p + 1, p + 2: one load of 16 inputs serves three. Tiles of 14 outputs; taps counts
 * threes. r1 y, r2 x, r3 w, r4 at, r5 threes left, r6 address, r8 r9 tiles and rows left ---- */
    function ft_m4_triples_14
    enter_forward
1:  ldr r8, [r0, #TILES]
2:  ldrd r3, r4, [r0, #W]
    ldr r5, [r0, #TAPS]
    load 0, 14, sp
3:  ldrh r6, [r4], #6
    add r6, r2, r6, lsl #2
    load 14, 16, r6
    vldmia r3!, {s30}
    scale_keep 0, 14, 14, 30
    vldmia r3!, {s30}
    scale_keep 0, 15, 14, 30
    vldmia r3!, {s30}
    scale 0, 16, 14, 30
    subs r5, r5, #1
    bne 3b
    store_on 0, 14, r1
    add r2, r2, #4*14
    subs r8, r8, #1
    bne 2b
    ldr r6, [r0, #SKIP]
    add r2, r2, r6
    subs r9, r9, #1
    bne 1b
    leave_forward
    .size ft_m4_triples_14, .-ft_m4_triples_14

/* ---- input gradient: rows of tiles of 8, each with a step behind it, and a rest of up to 7; a rest of 14: tiles of that.
 * r0 rest, r1 dx, r2 stride, r3 w, r4 at, r5 taps left, r6 dx now, r7 dy now, r8 r9 tiles and rows left, r10 step, r11 skip,
 * r12 tiles, lr job ---- */
.macro spread_piece n
    load 0, \n, r6
    load_on 14, \n, r7
    .if \n < 8 /* rare: as few bytes as can be */
    scale_keep 0, 14, \n, 31
    .else
    scale 0, 14, \n, 31
    .endif
    store_on 0, \n, r6
.endm

    function ft_m4_spread
    enter
    mov lr, r0
    ldr r1, [lr, #TO]
    ldrd r3, r4, [lr, #W]
    ldr r5, [lr, #TAPS]
    ldrd r2, r12, [lr, #STRIDE]
    ldr r10, [lr, #STEP]
    ldr r11, [lr, #SKIP]
    ldr r0, [lr, #REST]
1:  ldrh r6, [r4], #2
    vldmia r3!, {s31}
    ldr r7, [lr, #FROM]
    ldr r9, [lr, #ROWS]
    mla r6, r6, r2, r1
    cmp r0, #14
    beq 6f
2:  movs r8, r12
    beq 4f
3:  spread_piece 8
    add r6, r6, r10
    subs r8, r8, #1
    bne 3b
4:  cbnz r0, 8f
5:  add r6, r6, r11
    subs r9, r9, #1
    bne 2b
    b 9f
8:  lsls r8, r0, #30 /* 4 to carry, 2 to sign */
    bcc 81f
    spread_piece 4
81: bpl 82f
    spread_piece 2
82: lsls r8, r0, #31
    beq 5b
    spread_piece 1
    b 5b
6:  mov r8, r12
7:  spread_piece 14
    add r6, r6, r10
    subs r8, r8, #1
    bne 7b
    add r6, r6, r11
    subs r9, r9, #1
    bne 6b
9:  subs r5, r5, #1
    bne 1b
    leave
    .size ft_m4_spread, .-ft_m4_spread

/* ---- weight gradient: rows of tiles of 8 and a rest of up to 7; two taps share each load of dy, a last one counts twice and
 * is added once. Lanes: s0-s7 and s8-s15.
 * r1 dw, r2 stride, r3 x, r4 at, r5 taps left, r6 r7 x now, r8 dy now, r9 rows left, r10 rest, r11 skip, r12 tiles left,
 * lr tiles ---- */
.macro multiply at, x, y, n
    .set i, 0
    .rept \n
    .if FUSED
    fma_ %(\at+i), %(\x+i), %(\y+i)
    .else
    mla_ %(\at+i), %(\x+i), %(\y+i)
    .endif
    .set i, i+1
    .endr
.endm
.macro one_lane lane, offset
    vldr s16, [r8, #4*\offset]
    vldr s24, [r6, #4*\offset]
    vldr s25, [r7, #4*\offset]
    multiply \lane, 24, 16, 1
    multiply %(\lane+8), 25, 16, 1
.endm

    function ft_m4_correlate
    enter
    ldr r1, [r0, #TO]
    ldrd r3, r4, [r0, #W]
    ldr r5, [r0, #TAPS]
    ldrd r2, lr, [r0, #STRIDE]
    ldr r10, [r0, #REST]
    ldr r11, [r0, #SKIP]
1:  ldrh r6, [r4], #2
    mov r7, r6
    cmp r5, #1
    it ne
    ldrhne r7, [r4], #2
    mla r6, r6, r2, r3
    mla r7, r7, r2, r3
    ldr r8, [r0, #FROM]
    ldr r9, [r0, #ROWS]
    mov r12, #0
    vmov s0, s1, r12, r12
    vmov s2, s3, r12, r12
    vmov s4, s5, r12, r12
    vmov s6, s7, r12, r12
    vmov s8, s9, r12, r12
    vmov s10, s11, r12, r12
    vmov s12, s13, r12, r12
    vmov s14, s15, r12, r12
2:  movs r12, lr
    beq 4f
3:  load_on 16, 8, r8
    load_on 24, 8, r6
    product 0, 24, 16, 8
    load_on 24, 8, r7
    product 8, 24, 16, 8
    subs r12, r12, #1
    bne 3b
4:  tbb [pc, r10]
5:  .byte (90f-5b)/2, (81f-5b)/2, (82f-5b)/2, (83f-5b)/2, (84f-5b)/2, (85f-5b)/2, (86f-5b)/2, (87f-5b)/2
87: one_lane 6, 6
86: one_lane 5, 5
85: one_lane 4, 4
84: load 16, 4, r8
    load 24, 4, r6
    load 28, 4, r7
    multiply 0, 24, 16, 4
    multiply 8, 28, 16, 4
    b 90f
83: one_lane 2, 2
82: one_lane 1, 1
81: one_lane 0, 0
90: add r8, r8, r10, lsl #2
    add r6, r6, r11
    add r7, r7, r11
    subs r9, r9, #1
    bne 2b
    sum 0, 4, 4
    sum 8, 12, 4
    sum 0, 2, 2
    sum 8, 10, 2
    vldr s16, [r1]
    vadd.f32 s0, s0, s1
    vadd.f32 s8, s8, s9
    vadd.f32 s16, s16, s0
    vstmia r1!, {s16}
    subs r5, r5, #1
    beq 6f
    vldr s16, [r1]
    vadd.f32 s16, s16, s8
    vstmia r1!, {s16}
    subs r5, r5, #1
    bne 1b
6:  leave
    .size ft_m4_correlate, .-ft_m4_correlate

/* ---- reductions in eight lanes: r0 lanes, r1 x or a, r2 n or x, r3 n; s0 mean ---- */
.macro plain n
    load_on 8, \n, r1
    sum 0, 8, \n
.endm
.macro square n
    load_on 8, \n, r1
    differences 8, \n
    multiply 0, 8, 8, \n
.endm
.macro dot n
    load_on 8, \n, r2
    differences 8, \n
    load_on 16, \n, r1
    multiply 0, 16, 8, \n
.endm
.macro differences at, n
    .set i, 0
    .rept \n
    sub_ %(\at+i), %(\at+i), 31
    .set i, i+1
    .endr
.endm

.macro reduction name, count, what
    function \name
    vpush {s16-s31}
    vmov.f32 s31, s0
    load 0, 8, r0
    subs \count, \count, #8
    blo 2f
1:  \what 8
    subs \count, \count, #8
    bhs 1b
2:  store 0, 8, r0
    adds \count, \count, #8
    beq 4f
3:  load 0, 1, r0
    \what 1
    store_on 0, 1, r0
    subs \count, \count, #1
    bne 3b
4:  vpop {s16-s31}
    bx lr
    .size \name, .-\name
.endm

    reduction ft_lanes_sum, r2, plain
    reduction ft_lanes_squares, r2, square
    reduction ft_lanes_dot, r3, dot

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

/* Does `what` n elements at a time, then one by one. */
.macro blocks n, count, what
    subs \count, \count, #\n
    blo 2f
1:  \what \n
    subs \count, \count, #\n
    bhs 1b
2:  adds \count, \count, #\n
    beq 4f
3:  \what 1
    subs \count, \count, #1
    bne 3b
4:
.endm

/* ---- ft_m4_relu(y, x, n). As integers: negative and not NaN becomes 0. QADD keeps the sign of every number below zero and
 * clears that of NaNs. ---- */
.macro relu n
    .if \n == 1
    ldr r3, [r1], #4
    .else
    ldmia r1!, {r3-r7}
    .endif
    .irp x, 3, 4, 5, 6, 7
    .if \x < 3+\n
    qadd r8, r\x, r12
    bic r\x, r\x, r8, asr #31
    .endif
    .endr
    .if \n == 1
    str r3, [r0], #4
    .else
    stmia r0!, {r3-r7}
    .endif
.endm
    function ft_m4_relu
    push {r4-r8, lr}
    movw r12, #0xFFFF
    movt r12, #0x007F
    blocks 5, r2, relu
    pop {r4-r8, pc}
    .size ft_m4_relu, .-ft_m4_relu

/* ---- ft_m4_relu_backward(dx, dy, y, n): y from a ReLU without a limit. dx = y != 0 ? dy : 0 ---- */
.macro passed y, d
    rsb r\y, r\y, #0
    and r\d, r\d, r\y, asr #31
.endm
.macro relu_backward n
    .if \n == 1
    ldr r4, [r2], #4
    ldr r8, [r1], #4
    passed 4, 8
    str r8, [r0], #4
    .else
    ldmia r2!, {r4-r7}
    ldmia r1!, {r8-r11}
    passed 4, 8
    passed 5, 9
    passed 6, 10
    passed 7, 11
    stmia r0!, {r8-r11}
    .endif
.endm
    function ft_m4_relu_backward
    push {r4-r11, lr}
    blocks 4, r3, relu_backward
    pop {r4-r11, pc}
    .size ft_m4_relu_backward, .-ft_m4_relu_backward

/* ---- ft_sgd_step(w, g, m, rate, momentum, decay, n): r0-r3, s0-s2 ---- */
.macro sgd n
    load 8, \n, r0
    load_on 16, \n, r1
    load 24, \n, r2
    scale_keep 16, 8, \n, 2
    .set i, 0
    .rept \n
    .if FUSED
    fma_ %(16+i), %(24+i), 1
    .else
    mul_ %(24+i), %(24+i), 1
    add_ %(16+i), %(24+i), %(16+i)
    .endif
    .set i, i+1
    .endr
    store_on 16, \n, r2
    .set i, 0
    .rept \n
    .if FUSED
    fms_ %(8+i), %(16+i), 0
    .else
    mls_ %(8+i), %(16+i), 0
    .endif
    .set i, i+1
    .endr
    store_on 8, \n, r0
.endm
    function ft_sgd_step
    vpush {s16-s31}
    blocks 8, r3, sgd
    vpop {s16-s31}
    bx lr
    .size ft_sgd_step, .-ft_sgd_step

/* ---- ft_scale_run(y, x, mean, scale, shift, n): r0 y, r1 x, r2 n, s0-s2 ---- */
.macro scaled n
    load_on 4, \n, r1
    .set i, 4
    .rept \n
    sub_ %i, %i, 0
    .set i, i+1
    .endr
    .set i, 4
    .rept \n
    mul_ %i, %i, 1
    .set i, i+1
    .endr
    .set i, 4
    .rept \n
    add_ %i, %i, 2
    .set i, i+1
    .endr
    store_on 4, \n, r0
.endm
    function ft_scale_run
    blocks 4, r2, scaled
    bx lr
    .size ft_scale_run, .-ft_scale_run

/* ---- ft_add_forward(y, a, b, n) ---- */
.macro added n
    load_on 0, \n, r1
    load_on 8, \n, r2
    sum 0, 8, \n
    store_on 0, \n, r0
.endm
    function ft_add_forward
    blocks 8, r3, added
    bx lr
    .size ft_add_forward, .-ft_add_forward

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
    mov r6, r3
2:  vldmia r1!, {s0-s1}
    vldmia r5!, {s2-s3}
    vadd.f32 s4, s0, s1
    vadd.f32 s5, s2, s3
    vadd.f32 s4, s4, s5
    vcmp.f32 s4, s4
    vmrs APSR_nzcv, fpscr
    bvs 5f
3:  keep_larger 0, 1
    keep_larger 0, 2
    keep_larger 0, 3
4:  vstmia r0!, {s0}
    subs r6, r6, #1
    bne 2b
    add r1, r1, r12
    subs r4, r4, #1
    bne 1b
    pop {r4-r6, pc}
5:  keep_nan 0, 0 /* a NaN, or infinities of both signs */
    bvs 4b
    keep_nan 0, 1
    bvs 4b
    keep_nan 0, 2
    bvs 4b
    keep_nan 0, 3
    bvs 4b
    b 3b
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
