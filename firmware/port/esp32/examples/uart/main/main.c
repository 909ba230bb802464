/* A node on UART 0, which on most boards is the USB connector. */
#include "fedtiny_esp32.h"
#include "nvs_flash.h"

enum { BAUD = 115200, LEFT = 16384 /* bytes of heap for everything else */ };

void app_main(void)
{
    const fedtiny_uart uart = {UART_NUM_0, UART_PIN_NO_CHANGE, UART_PIN_NO_CHANGE, BAUD};
    ESP_ERROR_CHECK(nvs_flash_init());
    ESP_ERROR_CHECK(fedtiny_run_uart(&uart, fedtiny_memory(LEFT), NULL));
}
