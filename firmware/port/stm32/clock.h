/* The clock of an STM32F4: the full rate from the crystal, or what there is. */
#ifndef FT_PORT_STM32_CLOCK_H
#define FT_PORT_STM32_CLOCK_H

#include <stdint.h>

typedef struct {
    uint32_t processor_hz, apb1_hz, apb2_hz; /* of SysTick; of USART2; of USART1 */
} stm32_clock;

/* What a board says: STM32_HSE_HZ, its crystal, a whole number of MHz; STM32_HSE_BYPASS, 1 where a finished clock comes in its
 * place; STM32_PLL_TIMES, twice the full rate in MHz, a multiple of 48; STM32_SCALE, PWR_CR's VOS for that rate, and
 * STM32_FLASH_WAITS; STM32_APB1_BY and STM32_APB2_BY, 1, 2 or 4. A crystal or PLL that does not start in time leaves the chip on its
 * internal oscillator. */
stm32_clock stm32_clock_start(void);

#endif
