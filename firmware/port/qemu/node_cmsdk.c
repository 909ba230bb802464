/* board.h on ARM's MPS2 boards: CMSDK UART 0. PORT_UART: its address, PORT_UART_INTERRUPT: the number of its receive interrupt,
 * below 64; PORT_HZ: the processor's clock, and the UART's. */
#include "../cortexm/systick.h"
#include "../uart/board.h"
#include "../uart/receive.h"

#define UART(offset) (*(volatile uint32_t *)(PORT_UART + (offset)))
#define ENABLE_INTERRUPT(number) (*(volatile uint32_t *)(0xE000E100u + 4 * ((number) / 32)) = 1u << (number) % 32)
enum { DATA = 0x0, STATE = 0x4, CONTROL = 0x8, INTERRUPT = 0xC, DIVIDER = 0x10 };
enum { FULL_OUT = 1, FULL_IN = 2, SEND = 1, RECEIVE = 2, RECEIVE_INTERRUPT = 8, RECEIVED = 2 };

static void received(void);

__attribute__((section(".vectors.interrupts"), used)) static void (*const interrupts[])(void) = {
    [PORT_UART_INTERRUPT] = received};

static void received(void)
{
    UART(INTERRUPT) = RECEIVED;
    while (UART(STATE) & FULL_IN)
        receive_put((uint8_t)UART(DATA));
}

void board_start(void)
{
    systick_start(PORT_HZ);
    UART(DIVIDER) = PORT_HZ / NODE_BAUD;
    UART(CONTROL) = SEND | RECEIVE | RECEIVE_INTERRUPT;
    ENABLE_INTERRUPT(PORT_UART_INTERRUPT);
}

uint32_t board_send(const uint8_t *from, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        while (UART(STATE) & FULL_OUT)
            ;
        UART(DATA) = from[i];
    }
    return bytes;
}

uint8_t board_reset_reason(void) { return 1; /* an emulator's start */ }
