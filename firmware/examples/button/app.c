/* A device that learns knocks from the button that somebody presses after one. The knock is kept when it comes, its label when that comes; in
 * storage, where the board has some, so that a reset loses neither. A knock without a label is not trained on.
 *
 *     fedtiny build qemu-netduinoplus2 --app firmware/examples/button */
#include "device.h"
#include "fedtiny_capture.h"
#include "uart/app.h"
#include "uart/board.h"

enum { MOST = 256, IN_RAM = 24 };

static uint64_t bank[IN_RAM * (KNOCK * 2 + 16) / 8];
static uint16_t order[MOST];
static float x[KNOCK];
static ft_ring_bank ram;
static ft_ring_area area;
static ft_ring_store store;
static ft_ring ring;
static uint32_t ticket; /* of the last knock */

const ft_data *app_start(const char *name)
{
    const ft_storage *areas = board_areas(name);
    bool in_storage = areas && areas->bytes[FT_AREA_SAMPLES];
    store = in_storage ? ft_ring_in_area(&area, areas, FT_AREA_SAMPLES, KNOCK, FT_RING_I16)
                       : ft_ring_in_bank(&ram, bank, sizeof bank, KNOCK, FT_RING_I16);
    if (store.slots > MOST)
        store.slots = MOST;
    if (in_storage)
        store.group = store.slots;
    const ft_ring_config config = {.store = &store, .order = order, .floats = KNOCK, .classes = BUTTONS, .form = FT_RING_I16,
                                   .policy = in_storage ? FT_RING_KEEP : FT_RING_OLDEST, .scale = 1.0f / 8192, .dev_every = 8,
                                   .dev_most = 4};
    ft_ring_start(&ring, &config);
    device_start();
    return ft_ring_data(&ring);
}

uint32_t app_turn(ft_node *node, bool idle)
{
    (void)idle; /* it computes nothing itself */
    int button = device_button();
    if (button >= 0 && ticket) {
        ft_ring_label(&ring, ticket, (uint16_t)button);
        ft_ring_bind(&ring, node);
        ticket = 0;
    }
    if (device_knock(x)) {
        ft_ring_put(&ring, x, &ticket);
        ft_ring_bind(&ring, node); /* in a full ring one with a label made room */
    }
    return 4;
}
