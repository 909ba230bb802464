/* Bytes on their way from the receive interrupt to the main loop. */
#ifndef FT_PORT_UART_RECEIVE_H
#define FT_PORT_UART_RECEIVE_H

#include <stdint.h>

enum { RECEIVE_BYTES = 2048 }; /* a power of two; more than a frame takes on the line while another one is sent */

void receive_put(uint8_t byte); /* by the interrupt alone */
int receive_waiting(void);      /* 1: there is a byte for board_receive */

#endif
