/* board.h on a Stellaris LM3S6965, as somebody who has read PORTING.md alone would write it: UART 0, a PL011. */
#include "cortexm/systick.h"
#include "uart/board.h"
#include "uart/receive.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define UART(offset) REGISTER(0x4000C000u + (offset))
enum { DATA = 0x00, FLAGS = 0x18, WHOLE = 0x24, PART = 0x28, LINE = 0x2C, CONTROL = 0x30, MASK = 0x38, CLEAR = 0x44 };
enum { EMPTY_IN = 1 << 4, FULL_OUT = 1 << 5, RECEIVED = 1 << 4 | 1 << 6 };
enum { HZ = 50000000, INTERRUPT = 5 };

static void received(void);
__attribute__((section(".vectors.interrupts"), used)) static void (*const interrupts[])(void) = {[INTERRUPT] = received};

static void received(void)
{
    UART(CLEAR) = RECEIVED;
    while (!(UART(FLAGS) & EMPTY_IN))
        receive_put((uint8_t)UART(DATA));
}

void board_start(void)
{
    systick_start(HZ);
    REGISTER(0x400FE104) |= 1; /* clock of UART 0 */
    REGISTER(0x400FE108) |= 1; /* and of port A */
    UART(WHOLE) = HZ / 16 / NODE_BAUD;
    UART(PART) = 0;
    UART(LINE) = 3 << 5;
    UART(CONTROL) = 1 | 1 << 8 | 1 << 9;
    UART(MASK) = RECEIVED;
    REGISTER(0xE000E100) = 1u << INTERRUPT;
}

uint32_t board_send(const uint8_t *from, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        while (UART(FLAGS) & FULL_OUT)
            ;
        UART(DATA) = from[i];
    }
    return bytes;
}

uint8_t board_reset_reason(void) { return 1; }
