/* Scalar arithmetic that is the same bits everywhere: our own exp and log, finite checks, the sample order. */
#ifndef FT_NUM_H
#define FT_NUM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t ft_num_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float ft_num_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline bool ft_num_finite(float x) { return (ft_num_bits(x) & 0x7F800000u) != 0x7F800000u; }

static inline float ft_num_abs(float x) { return ft_num_from_bits(ft_num_bits(x) & 0x7FFFFFFFu); }

bool ft_num_all_finite(const float *x, uint32_t count);

float ft_num_exp(float x);  /* within 2 ulp on [-87, 88]; 0 below, infinity above */
float ft_num_log(float x);  /* within 2 ulp for normal x > 0 */
float ft_num_sqrt(float x); /* correctly rounded */
/* *sum += x in binary64, both finite: a processor without it would bring a library for this one addition. */
void ft_num_add(double *sum, float x);

#endif
