/* An application in a node's image, beside main.c. Both functions may be left out: then the node has no samples of its own and does
 * what it is asked, no more. */
#ifndef FT_PORT_UART_APP_H
#define FT_PORT_UART_APP_H

#include "fedtiny_wire.h"

/* After board_start: the application's samples, which outlive the node, or NULL: the host brings some. name: as in board.h. */
const ft_data *app_start(const char *name);

/* After each poll of the wire, never while a task runs. node NULL: there is no model. idle: the core's memory is; while it is not, what the
 * host sends or fetches lies there (ft_wire_holds), and the application may bind samples to the node but neither infer nor train. Returns
 * in how many milliseconds it wants the next turn, FT_WIRE_FOREVER: when bytes come. */
uint32_t app_turn(ft_node *node, bool idle);

#endif
