/* The STM32F4 port's register code on this computer: the registers are memory at their own addresses, and whenever the port
 * waits for the chip, here it does what the chip would do.
 *
 *   stm32_chip clock WHAT   WHAT: all | no-crystal | no-pll | no-switch | emulator: what of the clock tree works
 *   stm32_chip pins WHAT    what the UART was given, after the same
 *   stm32_chip reset FLAGS  hexadecimal RCC_CSR
 *   stm32_chip record N     saves N records, each start over again; then with the flash locked for good */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "port/cortexm/systick.h"
#include "port/stm32/registers.h"
#include "port/uart/board.h"
#include "port/uart/receive.h"

enum { SECTOR = 0x20000, FLASH = STM32_RECORD };
static const char *works = "all";
static uint8_t before[2 * SECTOR]; /* the two sectors as the chip last saw them */
static uint32_t processor_hz, erased, misused;
static int locked_for_good;

static uint8_t *sectors(void) { return (uint8_t *)(uintptr_t)FLASH; }

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
    uint32_t *now = (uint32_t *)(void *)sectors(), *old = (uint32_t *)(void *)before;
    if (FLASH_KEYR == 0xCDEF89ABu && !locked_for_good)
        FLASH_CR &= ~(1u << 31);
    FLASH_KEYR = 0;
    FLASH_SR = 0; /* what the port writes as 1 is cleared */
    uint32_t control = FLASH_CR;
    for (uint32_t slot = 0; control & 1 && slot < 2 * SECTOR / 4; slot += RECORD_SLOT / 4)
        for (uint32_t i = slot; memcmp(now + slot, old + slot, RECORD_SLOT) != 0; i++)
            if (now[i] != old[i]) {
                misused += control != (1u | 2u << 8) || (now[i] & ~old[i]);
                old[i] = now[i];
            }
    if ((control & (1u << 31 | 1u << 16 | 2)) == (1u << 16 | 2)) {
        uint32_t sector = control >> 3 & 15;
        misused += sector < STM32_RECORD_SECTOR || sector > STM32_RECORD_SECTOR + 1;
        memset(sectors() + (sector - STM32_RECORD_SECTOR) % 2 * SECTOR, 0xFF, SECTOR);
        memcpy(before, sectors(), sizeof before);
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
    for (int i = 0; i < count; i++) {
        int length = snprintf(record, sizeof record, "start %d", i);
        bad += record_save(storage, record, (uint32_t)length) != 0;
        bad += record_load(storage, found, sizeof found) != (uint32_t)length || memcmp(found, record, (size_t)length) != 0;
    }
    locked_for_good = 1;
    int refused = record_save(storage, "late", 4) != 0;
    uint32_t left = record_load(storage, found, sizeof found);
    misused += memcmp(sectors(), before, sizeof before) != 0; /* what was written without PG */
    printf("bad %d erased %u misused %u locked %u refused %d left %.*s\n", bad, erased, misused, FLASH_CR >> 31, refused,
           (int)left, (const char *)found);
}

int main(int argc, char **argv)
{
    map(0x40004000u, 0x4000); /* USART2 and PWR */
    map(0x40011000u, 0x1000);
    map(0x40020000u, 0x4000);
    map(0xE000E000u, 0x1000);
    map(FLASH, 2 * SECTOR);
    memset(sectors(), 0x5A, 2 * SECTOR); /* what another program left there */
    memcpy(before, sectors(), sizeof before);
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
    } else {
        records(atoi(argv[2]));
    }
    return 0;
}
