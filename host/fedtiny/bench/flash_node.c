/* A whole node that trains: every task of the wire on the core, every operator, the profiles psk and plain. What a board's port adds
 * (a UART, a clock, storage) is not in it. */
#include "fedtiny_wire.h"

static uint32_t now_ms(void *ctx) { return *(uint32_t *)ctx; }
static size_t put(void *ctx, const uint8_t *bytes, size_t count) { return *(uint8_t *)ctx == *bytes ? count : 0; }
static int load(void *ctx, uint8_t record[FT_WIRE_RECORD]) { return *(uint8_t *)ctx != record[0]; }
static int store(void *ctx, const uint8_t record[FT_WIRE_RECORD]) { return *(uint8_t *)ctx != record[0]; }

int main(void)
{
    static ft_wire wire;
    static ft_service service;
    static uint64_t memory[1024];
    static uint32_t machine;
    static const ft_wire_facts facts = {.device = "node", .board = "board"};
    const ft_wire_port port = {&machine, now_ms, put, 0, load, store};
    ft_service_start(&service, memory, sizeof memory, 0);
    if (ft_wire_start(&wire, &port, &facts, ft_service_tasks(&service)) != FT_OK)
        return 1;
    for (;;) {
        ft_wire_feed(&wire, (const uint8_t *)&machine, sizeof machine);
        machine = ft_wire_poll(&wire);
    }
}
