/* What both nodes take of the chip. */
#ifndef FT_PORT_ESP32_CHIP_H
#define FT_PORT_ESP32_CHIP_H

#include "fedtiny_esp32.h"
#include "fedtiny_storage.h"

typedef size_t (*chip_write)(void *ctx, const uint8_t *bytes, size_t count);

/* Starts wire and service. facts: zeros, but for what concerns the carrier. */
esp_err_t chip_start(ft_wire *wire, ft_service *service, ft_wire_facts *facts, chip_write write, fedtiny_piece memory,
                     const ft_data *own);
const ft_storage *chip_areas(void);  /* NULL: there is no partition named fedtiny */
TickType_t chip_ticks(uint32_t ms); /* at most a minute */

#endif
