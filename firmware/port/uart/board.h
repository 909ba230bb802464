/* What the node on a UART (main.c) asks of its board, beside port_memory. */
#ifndef FT_PORT_UART_BOARD_H
#define FT_PORT_UART_BOARD_H

#include <stdint.h>

#include "../record.h"
#include "fedtiny_storage.h"

void board_start(void); /* clock, time, and the UART with its receive interrupt, at NODE_BAUD */

uint32_t board_now_ms(void); /* since the start; wraps */

/* Bytes that the interrupt has taken in; 0 when there are none. What comes while RECEIVE_BYTES wait is lost: the protocol
 * asks for it again. */
uint32_t board_receive(uint8_t *to, uint32_t capacity);
uint32_t board_send(const uint8_t *from, uint32_t bytes); /* as many as were taken: all, unless the UART stopped */
void board_sleep(uint32_t ms); /* the processor waits for an interrupt until a byte is there, or so long */

const record_storage *board_storage(const char *name); /* name: of a file, on boards that have files */
/* Models and samples, beside the record of that name. NULL, as where no source of the board has it: the node keeps none, and samples
 * of a host lie in memory. */
const ft_storage *board_areas(const char *name);
uint8_t board_reset_reason(void); /* by the numbers of fedtiny.cddl: 0 unknown, 1 power, 2 pin, 3 watchdog, ... */

#endif
