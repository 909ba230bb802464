/* Checksums put right, from BLOB.md alone: not with the core's own functions. */
#include <string.h>

#include "target.h"

static uint32_t load(const uint8_t *p, int bytes)
{
    uint32_t v = 0;
    while (bytes--)
        v = v << 8 | p[bytes];
    return v;
}

static void store32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t crc32(uint32_t crc, const uint8_t *p, uint32_t n)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++)
                c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
            table[i] = c;
        }
    while (n--)
        crc = table[(crc ^ *p++) & 0xFF] ^ crc >> 8;
    return crc;
}

void fuzz_repair(uint8_t *blob, uint32_t size)
{
    if (size < 64)
        return;
    store32(blob + 8, size);
    uint64_t tensors = 8 * load(blob + 20, 2), ops = 32 * load(blob + 22, 2), params = load(blob + 24, 2);
    uint64_t tensor_at = load(blob + 32, 4), op_at = load(blob + 36, 4), param_at = load(blob + 40, 4);
    if (tensor_at + tensors <= size && op_at + ops <= size && param_at + 32 * params <= size) {
        uint32_t crc = crc32(0xFFFFFFFFu, blob + tensor_at, (uint32_t)tensors);
        crc = crc32(crc, blob + op_at, (uint32_t)ops);
        for (uint64_t i = 0; i < params; i++) {
            uint8_t kind[16];
            memcpy(kind, blob + param_at + 32 * i, sizeof kind);
            kind[1] = 0;
            crc = crc32(crc, kind, sizeof kind);
        }
        store32(blob + 16, ~crc);
    }
    store32(blob + 12, ~crc32(0xFFFFFFFFu, blob + 16, size - 16));
}
