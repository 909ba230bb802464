#include "systick.h"

#include "../start.h"
#include "../uart/board.h"
#include "../uart/receive.h"

#define SYSTICK(offset) (*(volatile uint32_t *)(0xE000E010u + (offset)))
enum { CONTROL = 0x0, RELOAD = 0x4, VALUE = 0x8, ENABLE = 1, INTERRUPT = 2, PROCESSOR_CLOCK = 4 };

enum { TICK_MS = 20 /* a sleeping processor wakes so often; the counter tells what is between */ };

static volatile uint32_t ticks;
static uint32_t cycles_a_ms;

void start_tick(void) { ticks++; }

void systick_start(uint32_t processor_hz)
{
    cycles_a_ms = processor_hz / 1000;
    SYSTICK(RELOAD) = cycles_a_ms * TICK_MS - 1;
    SYSTICK(VALUE) = 0;
    SYSTICK(CONTROL) = ENABLE | INTERRUPT | PROCESSOR_CLOCK;
}

uint32_t board_now_ms(void)
{
    uint32_t before, left; /* the counter runs down */
    do {
        before = ticks;
        left = SYSTICK(VALUE);
    } while (before != ticks);
    return before * TICK_MS + (cycles_a_ms * TICK_MS - 1 - left) / cycles_a_ms;
}

/* With interrupts held back, WFI ends when one is pending: a byte that comes after the look at the ring is not slept over. */
void board_sleep(uint32_t ms)
{
    uint32_t start = board_now_ms();
    while (!receive_waiting() && board_now_ms() - start < ms) {
        __asm__ volatile("cpsid i" ::: "memory");
        if (!receive_waiting())
            __asm__ volatile("wfi");
        __asm__ volatile("cpsie i" ::: "memory");
    }
}
