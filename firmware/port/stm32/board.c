/* board.h on an STM32F405: USART1 at PA9 (out) and PA10 (in). */
#include "../uart/board.h"

#include "../cortexm/systick.h"
#include "../uart/receive.h"
#include "clock.h"
#include "registers.h"

enum { USART1 = 37, OVERRUN = 1 << 3, RECEIVED = 1 << 5, CAN_SEND = 1 << 7 };
enum { RECEIVE = 1 << 2, SEND = 1 << 3, RECEIVED_INTERRUPT = 1 << 5, ENABLE = 1 << 13 };
enum { SEND_LOOKS = 1000000 }; /* far longer than a byte takes at any baud rate */

static void received(void);

__attribute__((section(".vectors.interrupts"), used)) static void (*const interrupts[])(void) = {[USART1] = received};

/* Reading the status and then the data ends an overrun, too. */
static void received(void)
{
    for (uint32_t status; (status = USART1_SR) & (RECEIVED | OVERRUN);) {
        uint8_t byte = (uint8_t)USART1_DR;
        if (status & RECEIVED)
            receive_put(byte);
    }
}

static void pins_start(void)
{
    RCC_AHB1ENR |= 1u << 0;
    GPIOA_AFRH = (GPIOA_AFRH & ~(0xFFu << 4)) | 0x77u << 4;       /* PA9 and PA10: function 7 */
    GPIOA_PUPDR = (GPIOA_PUPDR & ~(0xFu << 18)) | 4u << 18;       /* PA10: pulled up, so that a loose end is no noise */
    GPIOA_MODER = (GPIOA_MODER & ~(0xFu << 18)) | 0xAu << 18;     /* both: that function */
}

void board_start(void)
{
    stm32_clock clock = stm32_clock_start();
    systick_start(clock.processor_hz);
    pins_start();
    RCC_APB2ENR |= 1u << 4;
    USART1_BRR = (clock.apb2_hz + NODE_BAUD / 2) / NODE_BAUD;
    USART1_CR1 = ENABLE | SEND | RECEIVE | RECEIVED_INTERRUPT;
    NVIC_ISER1 = 1u << (USART1 - 32);
}

uint32_t board_send(const uint8_t *from, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        if (stm32_wait(&USART1_SR, CAN_SEND, CAN_SEND, SEND_LOOKS) != 0)
            return i;
        USART1_DR = from[i];
    }
    return bytes;
}

uint8_t board_reset_reason(void)
{
    enum { BROWN_OUT = 1 << 25, PIN = 1 << 26, POWER = 1 << 27, SOFTWARE = 1 << 28, WATCHDOGS = 3 << 29, FORGET = 1 << 24 };
    uint32_t flags = RCC_CSR;
    RCC_CSR = FORGET;
    if (flags & POWER)
        return 1;
    if (flags & WATCHDOGS)
        return 3;
    if (flags & SOFTWARE) /* this port resets the chip itself only after a fault */
        return 6;
    if (flags & BROWN_OUT)
        return 5;
    return flags & PIN ? 2 : 0;
}
