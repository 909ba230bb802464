#include <math.h>
#include <stdint.h>
#include <string.h>

/* Correctly rounded to nearest even, in integers. With the significand scaled to m 2^e, e even and m in [2^46, 2^48), the
 * integer root r = floor(sqrt(m)) has the 24 bits of the result; what remains decides the rounding: the root of a float
 * is never halfway between two floats, so m - r^2 > r means up. */
float sqrtf(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t exponent = (int32_t)(bits >> 23);
    uint32_t fraction = bits & 0x7FFFFFu;
    if ((bits & 0x7FFFFFFFu) == 0 || bits == 0x7F800000u)
        return x;
    if (exponent >= 255) { /* negative, or not a number */
        bits = 0x7FC00000u;
        memcpy(&x, &bits, sizeof x);
        return x;
    }
    if (exponent == 0)
        for (exponent = 1; !(fraction & 0x800000u); exponent--)
            fraction <<= 1;
    fraction |= 0x800000u;
    exponent -= 127;
    uint64_t rest = (uint64_t)fraction << (exponent & 1 ? 24 : 23);
    uint32_t root = 0;
    for (uint32_t bit = 1u << 23; bit; bit >>= 1) {
        uint64_t with = (uint64_t)(root | bit) * (root | bit);
        if (with <= rest)
            root |= bit;
    }
    rest -= (uint64_t)root * root;
    root += rest > root;
    exponent = (exponent - (exponent & 1)) / 2;
    /* adding, not or-ing: a root rounded up to 2^24 carries into the exponent */
    bits = ((uint32_t)(exponent + 126) << 23) + root;
    memcpy(&x, &bits, sizeof x);
    return x;
}
