/* board.h on QEMU's RISC-V virt: a 16550 behind the interrupt controller (PLIC), and the machine's timer of 10 MHz. */
#include "../start.h"
#include "../uart/board.h"
#include "../uart/receive.h"

#define WORD(address) (*(volatile uint32_t *)(address))
#define UART(offset) (*(volatile uint8_t *)(0x10000000u + (offset)))
enum { DATA = 0, INTERRUPTS = 1, FIFO = 2, LINE = 5, RECEIVED = 1, CAN_SEND = 1 << 5, UART_INTERRUPT = 10 };

#define PRIORITY(source) WORD(0x0C000000u + 4 * (source))
#define ENABLED WORD(0x0C002000u)
#define THRESHOLD WORD(0x0C200000u)
#define CLAIM WORD(0x0C200004u)

#define COMPARE_LOW WORD(0x02004000u)
#define COMPARE_HIGH WORD(0x02004004u)
#define TIME_LOW WORD(0x0200BFF8u)
#define TIME_HIGH WORD(0x0200BFFCu)
enum { TICKS_A_MS = 10000, TIMER = 1 << 7, EXTERNAL = 1 << 11, INTERRUPTS_ON = 1 << 3 };

__attribute__((interrupt)) void start_external(void)
{
    uint32_t source = CLAIM;
    while (UART(LINE) & RECEIVED)
        receive_put(UART(DATA));
    if (source)
        CLAIM = source;
}

static uint64_t ticks(void)
{
    uint32_t high, low;
    do {
        high = TIME_HIGH;
        low = TIME_LOW;
    } while (high != TIME_HIGH);
    return (uint64_t)high << 32 | low;
}

void board_start(void)
{
    PRIORITY(UART_INTERRUPT) = 1;
    ENABLED = 1u << UART_INTERRUPT;
    THRESHOLD = 0;
    UART(FIFO) = 1;
    UART(INTERRUPTS) = RECEIVED;
    __asm__ volatile("csrs mie, %0\n\tcsrs mstatus, %1" ::"r"(EXTERNAL), "r"(INTERRUPTS_ON) : "memory");
}

uint32_t board_now_ms(void) { return (uint32_t)(ticks() / TICKS_A_MS); }

uint32_t board_send(const uint8_t *from, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        while (!(UART(LINE) & CAN_SEND))
            ;
        UART(DATA) = from[i];
    }
    return bytes;
}

static void wake_at(uint64_t tick)
{
    COMPARE_HIGH = 0xFFFFFFFFu; /* never early while the halves do not fit */
    COMPARE_LOW = (uint32_t)tick;
    COMPARE_HIGH = (uint32_t)(tick >> 32);
}

/* WFI ends when an interrupt that mie names is pending, taken or not: with interrupts held back no byte is slept over, and the
 * timer's needs no handler. */
void board_sleep(uint32_t ms)
{
    uint64_t end = ticks() + (uint64_t)ms * TICKS_A_MS;
    wake_at(end);
    while (!receive_waiting() && ticks() < end) {
        __asm__ volatile("csrc mstatus, %0\n\tcsrs mie, %1" ::"r"(INTERRUPTS_ON), "r"(TIMER) : "memory");
        if (!receive_waiting())
            __asm__ volatile("wfi");
        __asm__ volatile("csrc mie, %1\n\tcsrs mstatus, %0" ::"r"(INTERRUPTS_ON), "r"(TIMER) : "memory");
    }
}

uint8_t board_reset_reason(void) { return 1; /* an emulator's start */ }
