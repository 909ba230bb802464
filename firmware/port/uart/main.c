/* A node on a UART. NODE_BOARD: its board's name, NODE_BAUD: the line's rate. argv[1]: the file of the record, on boards that
 * have files. */
#include <string.h>

#include "../port.h"
#include "../record.h"
#include "app.h"
#include "board.h"
#include "fedtiny_wire.h"

enum { TURN = 128 /* bytes fed between two polls */, BITS_A_BYTE = 10 };

/* The build writes the hash of the image behind the mark (host/fedtiny/images.py). */
__attribute__((used)) static const volatile uint8_t image_mark[16] = "fedtiny:";

static void say(const char *text) { board_send((const uint8_t *)text, (uint32_t)strlen(text)); }

static uint32_t now_ms(void *ctx)
{
    (void)ctx;
    return board_now_ms();
}

static size_t send_bytes(void *ctx, const uint8_t *bytes, size_t count)
{
    (void)ctx;
    return board_send(bytes, (uint32_t)count);
}

static int load(void *storage, uint8_t record[FT_WIRE_RECORD])
{
    return record_load(storage, record, FT_WIRE_RECORD) != FT_WIRE_RECORD;
}

static int store(void *storage, const uint8_t record[FT_WIRE_RECORD]) { return record_save(storage, record, FT_WIRE_RECORD); }

/* Of a board without storage for models and samples. */
__attribute__((weak)) const ft_storage *board_areas(const char *name)
{
    (void)name;
    return NULL;
}

/* Of an image without an application. */
__attribute__((weak)) const ft_data *app_start(const char *name)
{
    (void)name;
    return NULL;
}

__attribute__((weak)) uint32_t app_turn(ft_node *node, bool idle)
{
    (void)node;
    (void)idle;
    return FT_WIRE_FOREVER;
}

int main(int argc, char **argv)
{
    static ft_wire wire;
    static ft_service service;
    static ft_saver saver;
    static ft_wire_facts facts = {.device = "new", .board = NODE_BOARD, .bytes_per_s = NODE_BAUD / BITS_A_BYTE};
    uint32_t bytes;
    void *memory = port_memory(&bytes);
    const char *name = argc > 1 ? argv[1] : "fedtiny.record";
    ft_wire_port port = {NULL, now_ms, send_bytes, NULL, load, store};

    board_start();
    say("fedtiny node on " NODE_BOARD "\r\n"); /* for whoever watches the line; a host logs it */
    port.ctx = (void *)(uintptr_t)board_storage(name);
    facts.reset_reason = board_reset_reason();
    for (uint32_t i = 0; i < sizeof facts.firmware; i++)
        facts.firmware[i] = image_mark[8 + i];
    const ft_storage *areas = board_areas(name);
    const ft_data *own = app_start(name);
    ft_service_start(&service, memory, bytes, own);
    if (!own)
        ft_service_store_samples(&service, areas);
    if (ft_wire_start(&wire, &port, &facts, ft_service_tasks(&service)) != FT_OK) {
        say("the record cannot be stored, and without a new boot counter no session would be safe: this node stays silent\r\n");
        for (;;)
            board_sleep(FT_WIRE_FOREVER);
    }
    if (ft_saver_start(&saver, &service, &wire, areas))
        say("the last model is here\r\n");
    for (;;) {
        uint8_t turn[TURN];
        uint32_t count = board_receive(turn, sizeof turn);
        ft_wire_feed(&wire, turn, count);
        uint32_t wait_ms = ft_wire_poll(&wire), turn_ms = app_turn(ft_service_node(&service), !ft_wire_holds(&wire));
        if (!ft_wire_sending(&wire))
            board_sleep(wait_ms < turn_ms ? wait_ms : turn_ms);
    }
}
