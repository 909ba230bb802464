/* Eight floats at a time with the compiler's vector types, for the _vector variants. */
#ifndef FT_VECTOR_H
#define FT_VECTOR_H

#include <stdint.h>
#include <string.h>

#ifndef FT_TARGETS /* e.g. __attribute__((target_clones("avx2", "default"))): one function for each instruction set */
#define FT_TARGETS
#endif
#define FT_INLINE static inline __attribute__((always_inline))

typedef float v8 __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t v8i __attribute__((vector_size(32)));

FT_INLINE v8 load(const float *p)
{
    v8 v;
    memcpy(&v, p, sizeof v);
    return v;
}

FT_INLINE void store(float *p, v8 v) { memcpy(p, &v, sizeof v); }

FT_INLINE v8 splat(float x) { return (v8){x, x, x, x, x, x, x, x}; }

/* All bits of the first `n` lanes, n <= 8. */
FT_INLINE v8i first_lanes(uint32_t n)
{
    const int32_t k = (int32_t)n;
    return (v8i){0, 1, 2, 3, 4, 5, 6, 7} < (v8i){k, k, k, k, k, k, k, k};
}

FT_INLINE v8 only(v8 x, v8i lanes) { return (v8)((v8i)x & lanes); }
FT_INLINE v8 choose(v8i lanes, v8 x, v8 other) { return (v8)(((v8i)x & lanes) | ((v8i)other & ~lanes)); }

#endif
