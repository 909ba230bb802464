#include <stdint.h>
#include <string.h>

#pragma GCC optimize("no-tree-loop-distribute-patterns") /* or a compiler turns memcpy's loop into a call of memcpy */

/* Words where both sides are aligned: the core moves floats. may_alias: these bytes are somebody's floats. */
typedef uint32_t __attribute__((may_alias)) word;

static int aligned(const void *a, const void *b) { return (((uintptr_t)a | (uintptr_t)b) & 3) == 0; }

void *memcpy(void *restrict to, const void *restrict from, size_t bytes)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    if (aligned(d, s))
        for (; bytes >= 4; bytes -= 4, d += 4, s += 4)
            *(word *)(void *)d = *(const word *)(const void *)s;
    while (bytes--)
        *d++ = *s++;
    return to;
}

void *memmove(void *to, const void *from, size_t bytes)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((uintptr_t)d - (uintptr_t)s >= bytes)
        return memcpy(to, from, bytes);
    while (bytes--)
        d[bytes] = s[bytes];
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    uint8_t *d = to;
    if (aligned(d, d)) {
        word four = (uint8_t)value * 0x01010101u;
        for (; bytes >= 4; bytes -= 4, d += 4)
            *(word *)(void *)d = four;
    }
    while (bytes--)
        *d++ = (uint8_t)value;
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
    const uint8_t *x = a, *y = b;
    for (; bytes--; x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

int strcmp(const char *a, const char *b)
{
    for (; *a && *a == *b; a++)
        b++;
    return (uint8_t)*a - (uint8_t)*b;
}

size_t strlen(const char *text)
{
    const char *end = text;
    while (*end)
        end++;
    return (size_t)(end - text);
}
