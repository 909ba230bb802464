#include "clock.h"

#include "registers.h"

enum { HSI_HZ = 16000000, FULL_HZ = 168000000, LOOKS = 200000 /* some ten ms at 16 MHz; a crystal takes two */ };
enum { HSI_READY = 1 << 1, HSE_ON = 1 << 16, HSE_READY = 1 << 17, PLL_ON = 1 << 24, PLL_READY = 1 << 25 };
enum { MHZ = 1000000, PLL_TIMES = 336 << 6, PLL_BY_2 = 0 << 16, PLL_OF_HSE = 1 << 22, USB_BY_7 = 7 << 24 };
enum { APB1_BY_4 = 5 << 10, APB2_BY_2 = 4 << 13, SWITCH_PLL = 2, SWITCH_MASK = 3, SWITCHED_PLL = 2 << 2, SWITCHED_MASK = 3 << 2 };
enum { POWER_ON = 1 << 28, SCALE_1 = 1 << 14, FIVE_WAITS = 5, PREFETCH = 1 << 8, CACHES = 3 << 9 };

static int run_from_crystal(void)
{
    RCC_CR |= HSE_ON;
    if (stm32_wait(&RCC_CR, HSE_READY, HSE_READY, LOOKS) != 0)
        return 1;
    RCC_APB1ENR |= POWER_ON;
    PWR_CR |= SCALE_1;
    RCC_PLLCFGR = STM32_HSE_HZ / MHZ | PLL_TIMES | PLL_BY_2 | PLL_OF_HSE | USB_BY_7;
    RCC_CR |= PLL_ON;
    if (stm32_wait(&RCC_CR, PLL_READY, PLL_READY, LOOKS) != 0)
        return 1;
    FLASH_ACR = FIVE_WAITS | PREFETCH | CACHES; /* before the clock is faster than the flash */
    RCC_CFGR = APB1_BY_4 | APB2_BY_2;
    RCC_CFGR |= SWITCH_PLL;
    return stm32_wait(&RCC_CFGR, SWITCHED_MASK, SWITCHED_PLL, LOOKS);
}

stm32_clock stm32_clock_start(void)
{
    /* A chip runs from HSI when it starts, so there it reads as ready. Where it does not, an emulator has no clock tree: its
     * processor has the full rate, and its UART none. */
    if (!(RCC_CR & HSI_READY))
        return (stm32_clock){FULL_HZ, FULL_HZ / 2};
    if (run_from_crystal() == 0)
        return (stm32_clock){FULL_HZ, FULL_HZ / 2};
    RCC_CFGR &= ~(uint32_t)SWITCH_MASK;
    stm32_wait(&RCC_CFGR, SWITCHED_MASK, 0, LOOKS);
    RCC_CFGR = 0; /* the buses undivided */
    RCC_CR &= ~(uint32_t)(PLL_ON | HSE_ON);
    return (stm32_clock){HSI_HZ, HSI_HZ};
}
