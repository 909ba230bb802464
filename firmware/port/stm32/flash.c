/* What outlives a loss of power, in sectors of flash (RM0090, RM0383, RM0390: four of 16 KiB, one of 64, the others of 128):
 * the record in two of 128 KiB from STM32_RECORD_SECTOR on, as many records as a sector has slots for one erasure, so a sector outlives some
 * ten million starts; a model in each of the STM32_MODEL_SECTORS, 2 or 0, from STM32_MODEL_SECTOR on; samples in STM32_SAMPLES_SECTORS of them
 * from STM32_SAMPLES_SECTOR on; all behind the NODE_FLASH_BYTES that an image may take. The processor waits while its flash is erased, a second or two a sector: at a start and within a task, never while bytes come. */
#include <string.h>

#include "../uart/board.h"
#include "registers.h"

enum { FLASH_START = 0x08000000, SECTOR_BYTES = 0x20000, LOOKS = 10000000 };
enum { ERRORS = 0xF2, BUSY = 1 << 16, PROGRAM = 1 << 0, ERASE = 1 << 1, WORDS = 2 << 8, START = 1 << 16 };
#define LOCK (1u << 31)
enum { DATA_CACHE = 1 << 10, DATA_CACHE_RESET = 1 << 12 };

#define OFFSET(sector) ((sector) < 4 ? (sector) * 0x4000 : (sector) == 4 ? 0x10000 : ((sector) - 4) * SECTOR_BYTES)
#define BEHIND_THE_IMAGE(first, sectors) ((sectors) == 0 || NODE_FLASH_BYTES <= OFFSET(first) ? 1 : -1)
typedef char record_lies_behind_memory_flash_bytes[BEHIND_THE_IMAGE(STM32_RECORD_SECTOR, 2)];
typedef char models_lie_behind_memory_flash_bytes[BEHIND_THE_IMAGE(STM32_MODEL_SECTOR, STM32_MODEL_SECTORS)];
typedef char samples_lie_behind_memory_flash_bytes[BEHIND_THE_IMAGE(STM32_SAMPLES_SECTOR, STM32_SAMPLES_SECTORS)];

static uint32_t sector_at(uint32_t sector) { return FLASH_START + OFFSET(sector); }

static uint8_t *place(uint32_t half, uint32_t slot)
{
    return (uint8_t *)(uintptr_t)(sector_at(STM32_RECORD_SECTOR + half) + slot * RECORD_SLOT);
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

static int program(uint8_t *at, const uint8_t *from, uint32_t bytes)
{
    volatile uint32_t *to = (volatile uint32_t *)(void *)at;
    int failed = 0;
    if (unlock() != 0)
        return 1;
    FLASH_CR = PROGRAM | WORDS;
    for (uint32_t i = 0; i < bytes / 4 && !failed; i++) {
        uint32_t word;
        memcpy(&word, from + 4 * i, sizeof word);
        to[i] = word;
        failed = idle();
    }
    return lock(failed);
}

static int erase(uint32_t sector)
{
    if (unlock() != 0)
        return 1;
    FLASH_CR = ERASE | sector << 3 | WORDS;
    FLASH_CR |= START;
    int failed = lock(0);
    uint32_t with_cache = FLASH_ACR & DATA_CACHE; /* which may still hold what was erased */
    FLASH_ACR &= ~(uint32_t)DATA_CACHE;
    FLASH_ACR |= DATA_CACHE_RESET;
    FLASH_ACR &= ~(uint32_t)DATA_CACHE_RESET;
    FLASH_ACR |= with_cache;
    return failed;
}

static int write_slot(void *ctx, uint32_t half, uint32_t slot, const uint8_t *from)
{
    (void)ctx;
    return program(place(half, slot), from, RECORD_SLOT);
}

static int erase_half(void *ctx, uint32_t half)
{
    (void)ctx;
    return erase(STM32_RECORD_SECTOR + half);
}

const record_storage *board_storage(const char *name)
{
    static const record_storage storage = {0, SECTOR_BYTES / RECORD_SLOT, read_slot, write_slot, erase_half};
    (void)name;
    return &storage;
}

static uint32_t first_sector(uint32_t area)
{
    return area == FT_AREA_SAMPLES ? STM32_SAMPLES_SECTOR : STM32_MODEL_SECTOR + area;
}

static uint32_t sectors(uint32_t area) { return area == FT_AREA_SAMPLES ? STM32_SAMPLES_SECTORS : STM32_MODEL_SECTORS / 2; }

static uint8_t *area_at(uint32_t area, uint32_t at) { return (uint8_t *)(uintptr_t)(sector_at(first_sector(area)) + at); }

static int read_area(void *ctx, uint32_t area, uint32_t at, void *to, uint32_t count)
{
    (void)ctx;
    memcpy(to, area_at(area, at), count);
    return 0;
}

static int write_area(void *ctx, uint32_t area, uint32_t at, const void *from, uint32_t count)
{
    (void)ctx;
    return program(area_at(area, at), from, count);
}

static int erase_area(void *ctx, uint32_t area)
{
    int failed = 0;
    (void)ctx;
    for (uint32_t i = 0; i < sectors(area) && !failed; i++)
        failed = erase(first_sector(area) + i);
    return failed;
}

const ft_storage *board_areas(const char *name)
{
    static ft_storage areas = {0, {0}, read_area, write_area, erase_area};
    (void)name;
    for (uint32_t area = 0; area < FT_AREAS; area++)
        areas.bytes[area] = sector_at(first_sector(area) + sectors(area)) - sector_at(first_sector(area));
    return &areas;
}
