/* The clock of an STM32F405: 168 MHz from the crystal, or what there is. */
#ifndef FT_PORT_STM32_CLOCK_H
#define FT_PORT_STM32_CLOCK_H

#include <stdint.h>

typedef struct {
    uint32_t processor_hz, apb2_hz; /* of SysTick; of USART1 */
} stm32_clock;

/* STM32_HSE_HZ: the board's crystal, a whole number of MHz. A crystal or PLL that does not start in time leaves the chip on its
 * internal oscillator. */
stm32_clock stm32_clock_start(void);

#endif
