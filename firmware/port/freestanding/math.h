/* What the core takes of <math.h>, for toolchains that come without a C library. */
#ifndef FT_FREESTANDING_MATH_H
#define FT_FREESTANDING_MATH_H

#define INFINITY (__builtin_inff())

float sqrtf(float x);

#endif
