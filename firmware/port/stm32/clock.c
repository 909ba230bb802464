#include "clock.h"

#include "registers.h"

enum { MHZ = 1000000, HSI_HZ = 16 * MHZ, FULL_HZ = STM32_PLL_TIMES / 2 * MHZ };
enum { LOOKS = 200000 /* some ten ms at 16 MHz; a crystal takes two */ };
enum { HSI_READY = 1 << 1, HSE_ON = 1 << 16, HSE_READY = 1 << 17, BYPASS = STM32_HSE_BYPASS << 18 };
enum { PLL_ON = 1 << 24, PLL_READY = 1 << 25 };
enum { PLL_TIMES = STM32_PLL_TIMES << 6, PLL_BY_2 = 0 << 16, PLL_OF_HSE = 1 << 22, USB_48_MHZ = STM32_PLL_TIMES / 48 << 24 };
enum { PLL_REST = 2 << 28 /* as after a reset */, BY_1 = 0, BY_2 = 4, BY_4 = 5 };
enum { APB1 = STM32_APB1_BY == 1 ? BY_1 : STM32_APB1_BY == 2 ? BY_2 : BY_4 };
enum { APB2 = STM32_APB2_BY == 1 ? BY_1 : STM32_APB2_BY == 2 ? BY_2 : BY_4 };
enum { SWITCH_PLL = 2, SWITCH_MASK = 3, SWITCHED_PLL = 2 << 2, SWITCHED_MASK = 3 << 2 };
enum { POWER_ON = 1 << 28, SCALE = STM32_SCALE << 14, PREFETCH = 1 << 8, CACHES = 3 << 9 };

static int run_from_crystal(void)
{
    RCC_CR |= BYPASS;
    RCC_CR |= HSE_ON;
    if (stm32_wait(&RCC_CR, HSE_READY, HSE_READY, LOOKS) != 0)
        return 1;
    RCC_APB1ENR |= POWER_ON;
    PWR_CR |= SCALE;
    RCC_PLLCFGR = STM32_HSE_HZ / MHZ | PLL_TIMES | PLL_BY_2 | PLL_OF_HSE | USB_48_MHZ | PLL_REST;
    RCC_CR |= PLL_ON;
    if (stm32_wait(&RCC_CR, PLL_READY, PLL_READY, LOOKS) != 0)
        return 1;
    FLASH_ACR = STM32_FLASH_WAITS | PREFETCH | CACHES; /* before the clock is faster than the flash */
    RCC_CFGR = APB1 << 10 | APB2 << 13;
    RCC_CFGR |= SWITCH_PLL;
    return stm32_wait(&RCC_CFGR, SWITCHED_MASK, SWITCHED_PLL, LOOKS);
}

stm32_clock stm32_clock_start(void)
{
    stm32_clock full = {FULL_HZ, FULL_HZ / STM32_APB1_BY, FULL_HZ / STM32_APB2_BY};
    /* A chip runs from HSI when it starts, so there it reads as ready. Where it does not, an emulator has no clock tree: its
     * processor has the full rate, and its UART none. */
    if (!(RCC_CR & HSI_READY))
        return full;
    if (run_from_crystal() == 0)
        return full;
    RCC_CFGR &= ~(uint32_t)SWITCH_MASK;
    stm32_wait(&RCC_CFGR, SWITCHED_MASK, 0, LOOKS);
    RCC_CFGR = 0; /* the buses undivided */
    RCC_CR &= ~(uint32_t)(PLL_ON | HSE_ON);
    return (stm32_clock){HSI_HZ, HSI_HZ, HSI_HZ};
}
