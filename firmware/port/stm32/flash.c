/* The record in two sectors of 128 KiB, from STM32_RECORD_SECTOR at STM32_RECORD on: as many records as a sector has slots for one erasure, so a sector
 * outlives some ten million starts. The processor waits while its flash is erased, a second or two: at a start, never at work. */
#include <string.h>

#include "../uart/board.h"
#include "registers.h"

enum { SECTOR_BYTES = 0x20000, LOOKS = 10000000 };
enum { ERRORS = 0xF2, BUSY = 1 << 16, PROGRAM = 1 << 0, ERASE = 1 << 1, WORDS = 2 << 8, START = 1 << 16 };
#define LOCK (1u << 31)
enum { DATA_CACHE = 1 << 10, DATA_CACHE_RESET = 1 << 12 };

static uint8_t *place(uint32_t half, uint32_t slot)
{
    return (uint8_t *)(uintptr_t)(STM32_RECORD + half * SECTOR_BYTES + slot * RECORD_SLOT);
}

static int idle(void) { return stm32_wait(&FLASH_SR, BUSY, 0, LOOKS); }

static int unlock(void)
{
    if (FLASH_CR & LOCK) {
        FLASH_KEYR = 0x45670123u;
        FLASH_KEYR = 0xCDEF89ABu;
    }
    if (stm32_wait(&FLASH_CR, (uint32_t)LOCK, 0, LOOKS) != 0 || idle() != 0)
        return 1;
    FLASH_SR = ERRORS; /* written as 1 they are cleared */
    return 0;
}

static int lock(int failed)
{
    failed |= idle();
    failed |= (FLASH_SR & ERRORS) != 0;
    FLASH_CR = LOCK;
    return failed;
}

static int read_slot(void *ctx, uint32_t half, uint32_t slot, uint8_t *to)
{
    (void)ctx;
    memcpy(to, place(half, slot), RECORD_SLOT);
    return 0;
}

static int write_slot(void *ctx, uint32_t half, uint32_t slot, const uint8_t *from)
{
    volatile uint32_t *to = (volatile uint32_t *)(void *)place(half, slot);
    int failed = 0;
    (void)ctx;
    if (unlock() != 0)
        return 1;
    FLASH_CR = PROGRAM | WORDS;
    for (uint32_t i = 0; i < RECORD_SLOT / 4 && !failed; i++) {
        uint32_t word;
        memcpy(&word, from + 4 * i, sizeof word);
        to[i] = word;
        failed = idle();
    }
    return lock(failed);
}

static int erase_half(void *ctx, uint32_t half)
{
    (void)ctx;
    if (unlock() != 0)
        return 1;
    FLASH_CR = ERASE | (STM32_RECORD_SECTOR + half) << 3 | WORDS;
    FLASH_CR |= START;
    int failed = lock(0);
    uint32_t with_cache = FLASH_ACR & DATA_CACHE; /* which may still hold what was erased */
    FLASH_ACR &= ~(uint32_t)DATA_CACHE;
    FLASH_ACR |= DATA_CACHE_RESET;
    FLASH_ACR &= ~(uint32_t)DATA_CACHE_RESET;
    FLASH_ACR |= with_cache;
    return failed;
}

const record_storage *board_storage(const char *name)
{
    static const record_storage storage = {0, SECTOR_BYTES / RECORD_SLOT, read_slot, write_slot, erase_half};
    (void)name;
    return &storage;
}
