/* board.h on an STM32F4. STM32_UART: 1 for USART1 at PA9 (out) and PA10 (in), 2 for USART2 at PA2 and PA3. */
#include "../uart/board.h"

#include "../cortexm/systick.h"
#include "../uart/receive.h"
#include "clock.h"
#include "registers.h"

enum { IS_1 = STM32_UART == 1, INTERRUPT = IS_1 ? 37 : 38, PIN_OUT = IS_1 ? 9 : 2, PIN_IN = PIN_OUT + 1 };
enum { OVERRUN = 1 << 3, RECEIVED = 1 << 5, CAN_SEND = 1 << 7 };
enum { RECEIVE = 1 << 2, SEND = 1 << 3, RECEIVED_INTERRUPT = 1 << 5, ENABLE = 1 << 13 };
enum { SEND_LOOKS = 1000000 }; /* far longer than a byte takes at any baud rate */

static void received(void);

__attribute__((section(".vectors.interrupts"), used)) static void (*const interrupts[])(void) = {[INTERRUPT] = received};

/* Reading the status and then the data ends an overrun, too. */
static void received(void)
{
    for (uint32_t status; (status = UART_SR) & (RECEIVED | OVERRUN);) {
        uint8_t byte = (uint8_t)UART_DR;
        if (status & RECEIVED)
            receive_put(byte);
    }
}

static void pins_start(void)
{
    stm32_register *function = IS_1 ? &GPIOA_AFRH : &GPIOA_AFRL;
    RCC_AHB1ENR |= 1u << 0;
    *function = (*function & ~(0xFFu << PIN_OUT % 8 * 4)) | 0x77u << PIN_OUT % 8 * 4;
    GPIOA_PUPDR = (GPIOA_PUPDR & ~(0xFu << PIN_OUT * 2)) | 1u << PIN_IN * 2; /* in: pulled up, so that a loose end is no noise */
    GPIOA_MODER = (GPIOA_MODER & ~(0xFu << PIN_OUT * 2)) | 0xAu << PIN_OUT * 2;
}

void board_start(void)
{
    stm32_clock clock = stm32_clock_start();
    systick_start(clock.processor_hz);
    pins_start();
    if (IS_1)
        RCC_APB2ENR |= 1u << 4;
    else
        RCC_APB1ENR |= 1u << 17;
    UART_BRR = ((IS_1 ? clock.apb2_hz : clock.apb1_hz) + NODE_BAUD / 2) / NODE_BAUD;
    UART_CR1 = ENABLE | SEND | RECEIVE | RECEIVED_INTERRUPT;
    NVIC_ISER1 = 1u << (INTERRUPT - 32);
}

uint32_t board_send(const uint8_t *from, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        if (stm32_wait(&UART_SR, CAN_SEND, CAN_SEND, SEND_LOOKS) != 0)
            return i;
        UART_DR = from[i];
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
