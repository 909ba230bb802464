/* Instructions of Cortex-M's DSP extension, for the variants for the M4. */
#ifndef FTI_M4_H
#define FTI_M4_H

#include <stdint.h>
#include <string.h>

#include "scale.h"

/* The upper half of a b, rounded to nearest, ties up. */
static inline int32_t m4_high(int32_t a, int32_t b)
{
    int32_t r;
    __asm("smmulr %0, %1, %2" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

/* Bytes 0 and 2 of x, or 1 and 3, sign-extended to halves. */
static inline uint32_t m4_even(uint32_t x)
{
    uint32_t r;
    __asm("sxtb16 %0, %1" : "=r"(r) : "r"(x));
    return r;
}
static inline uint32_t m4_odd(uint32_t x)
{
    uint32_t r;
    __asm("sxtb16 %0, %1, ror #8" : "=r"(r) : "r"(x));
    return r;
}
/* The same, added to the halves of a. */
static inline uint32_t m4_even_add(uint32_t a, uint32_t x)
{
    uint32_t r;
    __asm("sxtab16 %0, %1, %2" : "=r"(r) : "r"(a), "r"(x));
    return r;
}
static inline uint32_t m4_odd_add(uint32_t a, uint32_t x)
{
    uint32_t r;
    __asm("sxtab16 %0, %1, %2, ror #8" : "=r"(r) : "r"(a), "r"(x));
    return r;
}

/* sum + the product of the lower halves, or of the upper ones. */
static inline int32_t m4_lower(uint32_t a, uint32_t b, int32_t sum)
{
    __asm("smlabb %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}
static inline int32_t m4_upper(uint32_t a, uint32_t b, int32_t sum)
{
    __asm("smlatt %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}

static inline int32_t m4_int8(int32_t x)
{
    __asm("ssat %0, #8, %0" : "+r"(x));
    return x;
}

static inline uint32_t m4_load(const void *at)
{
    uint32_t x;
    memcpy(&x, at, sizeof x);
    return x;
}

/* fti_narrowed(x / 2, n) */
static inline int32_t m4_narrowed(int32_t twice_x, const fti_narrow *n)
{
    const int32_t high = m4_high(twice_x, n->m);
    return (high + (high >> 31) + n->add) >> n->shift;
}

#endif
