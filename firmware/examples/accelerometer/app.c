/* A watch that learns what its wearer does: windows of 128 readings, each half new, in a ring in RAM. What the wearer says at that time
 * is the label; a window in which that changed has none and is not trained on.
 *
 *     fedtiny build qemu-netduinoplus2 --app firmware/examples/accelerometer */
#include "fedtiny_capture.h"
#include "sensor.h"
#include "uart/app.h"

enum { LENGTH = 128, HOP = 64, WINDOWS = 40, FLOATS = AXES * LENGTH };
/* A byte a number: 1/64 of a step of the sensor's range of -2 to 2 is less than its noise. */
static const float scale = 4.0f / 255.0f, offset = -2.0f;

static uint64_t bank[WINDOWS * (FLOATS + 16) / 8];
static uint16_t order[WINDOWS];
static float readings[FLOATS], x[FLOATS];
static ft_ring_bank place;
static ft_ring_store store;
static ft_ring ring;
static ft_window window;
static uint16_t activity;
static uint32_t since; /* readings of this activity */

const ft_data *app_start(const char *name)
{
    (void)name;
    store = ft_ring_in_bank(&place, bank, sizeof bank, FLOATS, FT_RING_U8);
    const ft_ring_config config = {.store = &store, .order = order, .floats = FLOATS, .classes = ACTIVITIES, .form = FT_RING_U8,
                                   .policy = FT_RING_OLDEST, .scale = scale, .offset = offset, .dev_every = 8, .dev_most = 4};
    ft_ring_start(&ring, &config);
    ft_window_start(&window, readings, AXES, LENGTH, HOP);
    sensor_start();
    return ft_ring_data(&ring);
}

uint32_t app_turn(ft_node *node, bool idle)
{
    (void)idle; /* it computes nothing itself */
    float reading[AXES];
    while (sensor_read(reading)) {
        uint32_t ticket;
        since = sensor_activity() == activity ? since + 1 : 1;
        activity = sensor_activity();
        if (!ft_window_push(&window, reading))
            continue;
        ft_window_read(&window, x);
        if (ft_ring_put(&ring, x, &ticket) == FT_OK && since >= LENGTH)
            ft_ring_label(&ring, ticket, activity);
        ft_ring_bind(&ring, node);
    }
    return 10;
}
