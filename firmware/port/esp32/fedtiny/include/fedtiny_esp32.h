/* fedtiny on ESP-IDF: a node on a UART or behind an MQTT broker. Both run in the caller's task, which needs 10 KB of stack, and
 * return only if they cannot start. nvs_flash_init() comes first: NVS keeps the node's id, key and boot counter,
 * a data partition named fedtiny, if there is one, the last good model. */
#ifndef FEDTINY_ESP32_H
#define FEDTINY_ESP32_H

#include "driver/uart.h"
#include "esp_err.h"
#include "fedtiny.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One contiguous piece for samples, model and arena: fedtiny_memory() takes the largest that the heap has, less `left` bytes. */
typedef struct {
    void *at; /* 8-byte aligned */
    uint32_t bytes;
} fedtiny_piece;
fedtiny_piece fedtiny_memory(uint32_t left); /* at: NULL if there is none */
/* A piece that is faster than memory, such as internal RAM where memory is PSRAM: what of the arena fits lies there. Before
 * fedtiny_run_*, and it stays. */
void fedtiny_bank(fedtiny_piece piece);

typedef struct {
    uart_port_t port;
    int tx_pin, rx_pin; /* UART_PIN_NO_CHANGE: as they are */
    int baud;
} fedtiny_uart;

/* own: the application's samples, or NULL: the host sends some. ESP_ERR_INVALID_STATE: NVS cannot keep the boot counter. */
esp_err_t fedtiny_run_uart(const fedtiny_uart *uart, fedtiny_piece memory, const ft_data *own);

/* The user name is the device's id, so the node must have its key before: by UART, or an NVS image made for it. */
typedef struct {
    const char *uri;       /* mqtts://HOST:8883 */
    const char *authority; /* PEM of who signed the broker's certificate */
    const char *password;
    const char *fleet;
} fedtiny_mqtt;

/* The network is up, or comes up later. ESP_ERR_NOT_FOUND: the node has no key yet. */
esp_err_t fedtiny_run_mqtt(const fedtiny_mqtt *mqtt, fedtiny_piece memory, const ft_data *own);

#ifdef __cplusplus
}
#endif
#endif
