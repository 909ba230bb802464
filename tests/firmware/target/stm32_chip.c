/* The STM32F4 port's register code on this computer: the registers are memory at their own addresses, and whenever the port
 * waits for the chip, here it does what the chip would do.
 *
 *   stm32_chip clock WHAT   WHAT: all | no-crystal | no-pll | no-switch | emulator: what of the clock tree works
 *   stm32_chip pins WHAT    what the UART was given, after the same
 *   stm32_chip reset FLAGS  hexadecimal RCC_CSR
 *   stm32_chip record N     saves N records, each start over again; then with the flash locked for good
 *   stm32_chip areas SEED   erases, writes and reads each area of models and samples, with bytes of that seed */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "port/cortexm/systick.h"
#include "port/stm32/registers.h"
#include "port/uart/board.h"
#include "port/uart/receive.h"

enum { FLASH = 0x08000000, ALL = 0x100000, LINE = 128 };
static const char *works = "all";
static uint8_t before[ALL];            /* as the chip last saw its flash */
static uint32_t may_from, may_to = ALL; /* what may change */
static uint32_t processor_hz, erased, misused;
static int locked_for_good;

static uint8_t *flash(void) { return (uint8_t *)(uintptr_t)FLASH; }

/* RM0090, table 5. */
static uint32_t sector_at(uint32_t sector)
{
    static const uint32_t first[] = {0x0, 0x4000, 0x8000, 0xC000, 0x10000};
    return sector < 5 ? first[sector] : 0x20000 * (sector - 4);
}

static void clock_tree(void)
{
    int crystal = strcmp(works, "no-crystal") != 0, pll = strcmp(works, "no-pll") != 0, turns = strcmp(works, "no-switch") != 0;
    if (RCC_CR & 1u << 16 && crystal)
        RCC_CR |= 1u << 17;
    if (RCC_CR & 1u << 24 && RCC_CR & 1u << 17 && pll)
        RCC_CR |= 1u << 25;
    if ((RCC_CFGR & 3) != 2 || (RCC_CR & 1u << 25 && turns))
        RCC_CFGR = (RCC_CFGR & ~(3u << 2)) | (RCC_CFGR & 3) << 2;
}

/* Words change only while PG is set, 32 bits at a time, from 1 to 0; a sector is erased by SER with its number and STRT. */
static void flash_controller(void)
{
    uint32_t *now = (uint32_t *)(void *)flash(), *old = (uint32_t *)(void *)before;
    if (FLASH_KEYR == 0xCDEF89ABu && !locked_for_good)
        FLASH_CR &= ~(1u << 31);
    FLASH_KEYR = 0;
    FLASH_SR = 0; /* what the port writes as 1 is cleared */
    uint32_t control = FLASH_CR;
    for (uint32_t line = may_from / 4; control & 1 && line < may_to / 4; line += LINE / 4)
        for (uint32_t i = line; memcmp(now + line, old + line, LINE) != 0; i++)
            if (now[i] != old[i]) {
                misused += control != (1u | 2u << 8) || (now[i] & ~old[i]);
                old[i] = now[i];
            }
    if ((control & (1u << 31 | 1u << 16 | 2)) == (1u << 16 | 2)) {
        uint32_t sector = control >> 3 & 15, begin = sector_at(sector), end = sector_at(sector + 1);
        misused += sector > 11 || begin < may_from || end > may_to;
        memset(flash() + begin, 0xFF, end - begin);
        memcpy(before, flash(), sizeof before);
        FLASH_CR &= ~(1u << 16);
        erased++;
    }
}

int stm32_wait(stm32_register *at, uint32_t mask, uint32_t wanted, uint32_t looks)
{
    clock_tree();
    flash_controller();
    return looks > 1 && (*at & mask) == wanted ? 0 : 1;
}

void systick_start(uint32_t hz) { processor_hz = hz; }

void receive_put(uint8_t byte) { (void)byte; }

static void map(uintptr_t address, size_t bytes)
{
    void *got = mmap((void *)address, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (got != (void *)address) {
        perror("mmap");
        exit(3);
    }
}

static void records(int count)
{
    const record_storage *storage = board_storage("");
    uint8_t found[RECORD_BYTES];
    char record[32];
    int bad = 0;
    may_from = sector_at(STM32_RECORD_SECTOR);
    may_to = sector_at(STM32_RECORD_SECTOR + 2);
    for (int i = 0; i < count; i++) {
        int length = snprintf(record, sizeof record, "start %d", i);
        bad += record_save(storage, record, (uint32_t)length) != 0;
        bad += record_load(storage, found, sizeof found) != (uint32_t)length || memcmp(found, record, (size_t)length) != 0;
    }
    locked_for_good = 1;
    int refused = record_save(storage, "late", 4) != 0;
    uint32_t left = record_load(storage, found, sizeof found);
    misused += memcmp(flash(), before, sizeof before) != 0; /* what was written without PG */
    printf("bad %d erased %u misused %u locked %u refused %d left %.*s\n", bad, erased, misused, FLASH_CR >> 31, refused,
           (int)left, (const char *)found);
}

/* Pieces of 8 to 2,056 bytes, from odd addresses. */
static void areas(unsigned seed)
{
    static uint8_t wanted[ALL + 1], found[ALL];
    const ft_storage *storage = board_areas("");
    for (uint32_t area = 0; area < FT_AREAS; area++) {
        uint32_t bytes = storage->bytes[area], at = 0, count;
        int bad = 0;
        srand(seed + area);
        erased = 0;
        for (uint32_t i = 0; i < sizeof wanted; i++)
            wanted[i] = (uint8_t)(rand() >> 8);
        may_from = 0;
        may_to = ALL;
        memcpy(found, flash(), ALL);
        bad += bytes && storage->erase(0, area) != 0;
        while (may_from < ALL && flash()[may_from] == found[may_from])
            may_from++;
        may_to = may_from + bytes;
        bad += bytes && (storage->read(0, area, 0, found, bytes) != 0 || found[0] != 0xFF || memcmp(found, found + 1, bytes - 1) != 0);
        for (; at < bytes; at += count) {
            count = 8 + (uint32_t)(rand() % 257) * 8;
            count = count < bytes - at ? count : bytes - at;
            bad += storage->write(0, area, at, wanted + 1 + at, count) != 0;
        }
        bad += storage->read(0, area, 0, found, bytes) != 0 || memcmp(found, wanted + 1, bytes) != 0;
        printf("area %u at %x bytes %u bad %d erased %u\n", area, bytes ? may_from : 0, bytes, bad, erased);
    }
    printf("misused %u changed %d\n", misused, memcmp(flash(), before, sizeof before) != 0);
}

int main(int argc, char **argv)
{
    map(0x40004000u, 0x4000); /* USART2 and PWR */
    map(0x40011000u, 0x1000);
    map(0x40020000u, 0x4000);
    map(0xE000E000u, 0x1000);
    map(FLASH, ALL);
    memset(flash(), 0x5A, ALL); /* what another program left there */
    memcpy(before, flash(), sizeof before);
    FLASH_CR = 1u << 31;
    if (argc != 3)
        return 2;
    if (strcmp(argv[1], "clock") == 0) {
        works = argv[2];
        RCC_CR = strcmp(works, "emulator") == 0 ? 0 : 0x83;
        board_start();
        printf("hz %u pll %x buses %x waits %u scale %x bypass %u baud %x on %u\n", processor_hz, RCC_PLLCFGR, RCC_CFGR,
               FLASH_ACR & 7, PWR_CR, RCC_CR >> 18 & 1, UART_BRR, RCC_CR >> 16 & 1);
    } else if (strcmp(argv[1], "pins") == 0) {
        RCC_CR = 0x83;
        board_start();
        printf("out %d modes %x pulled %x high %x low %x apb1 %x apb2 %x interrupts %x\n", STM32_UART == 1 ? 9 : 2, GPIOA_MODER,
               GPIOA_PUPDR, GPIOA_AFRH, GPIOA_AFRL, RCC_APB1ENR, RCC_APB2ENR, NVIC_ISER1);
    } else if (strcmp(argv[1], "reset") == 0) {
        RCC_CSR = (uint32_t)strtoul(argv[2], NULL, 16);
        printf("%u", board_reset_reason());
    } else if (strcmp(argv[1], "areas") == 0) {
        areas((unsigned)atoi(argv[2]));
    } else {
        records(atoi(argv[2]));
    }
    return 0;
}
