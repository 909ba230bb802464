#include "freertos/FreeRTOS.h"
#include "chip.h"

enum { IN = 4096, OUT = 2048, TURN = 128 /* bytes fed between two polls */, BITS_A_BYTE = 10 };

static uart_port_t port; /* one node a program: write has no other way to know it */

static size_t send_bytes(void *ctx, const uint8_t *bytes, size_t count)
{
    (void)ctx;
    int sent = uart_write_bytes(port, bytes, count);
    return sent > 0 ? (size_t)sent : 0;
}

static esp_err_t open_uart(const fedtiny_uart *uart)
{
    const uart_config_t config = {
        .baud_rate = uart->baud,
        .data_bits = UART_DATA_8_BITS,
        .parity = UART_PARITY_DISABLE,
        .stop_bits = UART_STOP_BITS_1,
        .flow_ctrl = UART_HW_FLOWCTRL_DISABLE,
        .source_clk = UART_SCLK_DEFAULT,
    };
    esp_err_t error = uart_driver_install(uart->port, IN, OUT, 0, NULL, 0);
    if (error == ESP_OK)
        error = uart_param_config(uart->port, &config);
    if (error == ESP_OK)
        error = uart_set_pin(uart->port, uart->tx_pin, uart->rx_pin, UART_PIN_NO_CHANGE, UART_PIN_NO_CHANGE);
    return error;
}

/* uart_read_bytes waits for as many bytes as it is asked for: so for one, and then takes what else is there. */
static size_t receive(uint8_t *to, size_t capacity, TickType_t ticks)
{
    size_t more = 0;
    if (uart_read_bytes(port, to, 1, ticks) != 1)
        return 0;
    if (uart_get_buffered_data_len(port, &more) != ESP_OK || more == 0)
        return 1;
    int count = uart_read_bytes(port, to + 1, more < capacity - 1 ? more : capacity - 1, 0);
    return count > 0 ? 1 + (size_t)count : 1;
}

esp_err_t fedtiny_run_uart(const fedtiny_uart *uart, fedtiny_piece memory, const ft_data *own)
{
    static ft_wire wire;
    static ft_service service;
    static ft_wire_facts facts;
    esp_err_t error = open_uart(uart);
    if (error != ESP_OK)
        return error;
    port = uart->port;
    facts.bytes_per_s = (uint32_t)uart->baud / BITS_A_BYTE;
    error = chip_start(&wire, &service, &facts, send_bytes, memory, own);
    if (error != ESP_OK)
        return error;
    for (uint32_t wait_ms = 0;;) {
        uint8_t turn[TURN];
        size_t count = receive(turn, sizeof turn, chip_ticks(wait_ms));
        ft_wire_feed(&wire, turn, count);
        wait_ms = ft_wire_poll(&wire);
        if (ft_wire_sending(&wire))
            wait_ms = 0;
    }
}
