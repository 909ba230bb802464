#include "record.h"

#include <string.h>

enum { SEQUENCE = 4, LENGTH = 8, BODY = 12, CHECK = RECORD_SLOT - 4 };
static const uint8_t magic[4] = {'F', 'T', 'R', 'C'};

typedef struct {
    uint32_t half, slot, sequence; /* sequence 0: no record */
} place;

static uint32_t get_u32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void put_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t crc32(const uint8_t *bytes, uint32_t count)
{
    uint32_t crc = 0xFFFFFFFFu;
    while (count--) {
        crc ^= *bytes++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static int valid(const uint8_t *slot)
{
    return memcmp(slot, magic, sizeof magic) == 0 && get_u32(slot + LENGTH) <= RECORD_BYTES
           && get_u32(slot + CHECK) == crc32(slot, CHECK);
}

static int blank(const uint8_t *slot)
{
    for (uint32_t i = 0; i < RECORD_SLOT; i++)
        if (slot[i] != 0xFF)
            return 0;
    return 1;
}

static place newest(const record_storage *storage, uint8_t *slot)
{
    place best = {1, storage->slots, 0}; /* so that the first record goes to the start of half 0 */
    for (uint32_t half = 0; half < 2; half++)
        for (uint32_t i = 0; i < storage->slots; i++)
            if (storage->read(storage->ctx, half, i, slot) == 0 && valid(slot) && get_u32(slot + SEQUENCE) > best.sequence)
                best = (place){half, i, get_u32(slot + SEQUENCE)};
    return best;
}

uint32_t record_load(const record_storage *storage, void *to, uint32_t capacity)
{
    uint8_t slot[RECORD_SLOT];
    place at = newest(storage, slot);
    if (at.sequence == 0 || storage->read(storage->ctx, at.half, at.slot, slot) != 0 || !valid(slot))
        return 0;
    uint32_t bytes = get_u32(slot + LENGTH);
    if (bytes > capacity)
        return 0;
    memcpy(to, slot + BODY, bytes);
    return bytes;
}

/* The next blank slot of the half in use; where there is none, the start of the other half, erased. A slot that a loss of
 * power left half written is neither valid nor blank: it is passed over. */
static int next(const record_storage *storage, place *at, uint8_t *slot)
{
    if (at->sequence)
        for (at->slot++; at->slot < storage->slots; at->slot++)
            if (storage->read(storage->ctx, at->half, at->slot, slot) == 0 && blank(slot))
                return 0;
    at->half ^= 1;
    at->slot = 0;
    return storage->erase(storage->ctx, at->half);
}

int record_save(const record_storage *storage, const void *from, uint32_t bytes)
{
    uint8_t slot[RECORD_SLOT], back[RECORD_SLOT];
    if (bytes == 0 || bytes > RECORD_BYTES)
        return 1;
    place at = newest(storage, slot);
    if (next(storage, &at, slot) != 0)
        return 1;
    memset(slot, 0, sizeof slot);
    memcpy(slot, magic, sizeof magic);
    put_u32(slot + SEQUENCE, at.sequence + 1);
    put_u32(slot + LENGTH, bytes);
    memcpy(slot + BODY, from, bytes);
    put_u32(slot + CHECK, crc32(slot, CHECK));
    return storage->write(storage->ctx, at.half, at.slot, slot) != 0 || storage->read(storage->ctx, at.half, at.slot, back) != 0
           || memcmp(slot, back, sizeof slot) != 0;
}
