/* A node's end of the wire, with tasks that do nothing: protocol and cryptography of the profiles psk and plain. */
#include "fedtiny_wire.h"

static uint32_t now_ms(void *ctx) { return *(uint32_t *)ctx; }
static size_t put(void *ctx, const uint8_t *bytes, size_t count) { return *(uint8_t *)ctx == *bytes ? count : 0; }
static int load(void *ctx, uint8_t record[FT_WIRE_RECORD]) { return *(uint8_t *)ctx != record[0]; }
static int store(void *ctx, const uint8_t record[FT_WIRE_RECORD]) { return *(uint8_t *)ctx != record[0]; }

static uint8_t *place(void *ctx, const ft_wire_task *task, uint32_t i, bool *have, ft_wire_reply *reply)
{
    *have = i == task->object_count;
    return reply->status ? 0 : ctx;
}

static void work(void *ctx, const ft_wire_task *task, const ft_wire_counts *counts, uint32_t boots, ft_wire_reply *reply)
{
    reply->status = (uint8_t)(*(uint8_t *)ctx + task->kind + counts->tasks + boots);
}

static void room(void *ctx, uint32_t *arena_bytes, uint32_t *free_bytes) { *arena_bytes = *free_bytes = *(uint32_t *)ctx; }

static void wire(void)
{
    static ft_wire node;
    static uint32_t machine;
    static const ft_wire_facts facts = {.device = "node", .board = "board"};
    const ft_wire_port port = {&machine, now_ms, put, 0, load, store};
    if (ft_wire_start(&node, &port, &facts, (ft_wire_tasks){&machine, place, work, room}) != FT_OK)
        return;
    for (;;) {
        ft_wire_feed(&node, (const uint8_t *)&machine, sizeof machine);
        machine = ft_wire_poll(&node);
    }
}

void (*const flash_more)(void) = wire;
