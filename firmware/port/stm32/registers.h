/* Registers of the STM32F4 that the port uses: those of RM0090 (F405), RM0383 (F411) and RM0390 (F446) alike. */
#ifndef FT_PORT_STM32_REGISTERS_H
#define FT_PORT_STM32_REGISTERS_H

#include <stdint.h>

typedef volatile uint32_t stm32_register;
#define STM32_REGISTER(address) (*(stm32_register *)(uintptr_t)(address))

#define PWR_CR STM32_REGISTER(0x40007000u)
#define STM32_UART_AT(offset) STM32_REGISTER((STM32_UART == 1 ? 0x40011000u : 0x40004400u) + (offset))
#define UART_SR STM32_UART_AT(0x0u)
#define UART_DR STM32_UART_AT(0x4u)
#define UART_BRR STM32_UART_AT(0x8u)
#define UART_CR1 STM32_UART_AT(0xCu)
#define GPIOA_MODER STM32_REGISTER(0x40020000u)
#define GPIOA_PUPDR STM32_REGISTER(0x4002000Cu)
#define GPIOA_AFRL STM32_REGISTER(0x40020020u)
#define GPIOA_AFRH STM32_REGISTER(0x40020024u)
#define RCC_CR STM32_REGISTER(0x40023800u)
#define RCC_PLLCFGR STM32_REGISTER(0x40023804u)
#define RCC_CFGR STM32_REGISTER(0x40023808u)
#define RCC_AHB1ENR STM32_REGISTER(0x40023830u)
#define RCC_APB1ENR STM32_REGISTER(0x40023840u)
#define RCC_APB2ENR STM32_REGISTER(0x40023844u)
#define RCC_CSR STM32_REGISTER(0x40023874u)
#define FLASH_ACR STM32_REGISTER(0x40023C00u)
#define FLASH_KEYR STM32_REGISTER(0x40023C04u)
#define FLASH_SR STM32_REGISTER(0x40023C0Cu)
#define FLASH_CR STM32_REGISTER(0x40023C10u)
#define NVIC_ISER1 STM32_REGISTER(0xE000E104u)
#define SCB_AIRCR STM32_REGISTER(0xE000ED0Cu)

/* Waits until the bits of the mask read as wanted. 0, or 1 after so many looks. */
int stm32_wait(stm32_register *at, uint32_t mask, uint32_t wanted, uint32_t looks);

#endif
