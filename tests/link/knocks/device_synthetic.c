/* A device of the example `button`: enough knocks to fill its ring in RAM, each with a button; one more without, once a file is there. */
#include <stdlib.h>
#include <unistd.h>

#include "device.h"

enum { KNOCKS = 30 };
static uint32_t knocks;
static bool pressed = true;

void device_start(void) {}

bool device_knock(float x[KNOCK])
{
    if (!pressed || knocks > KNOCKS || (knocks == KNOCKS && access(getenv("LAST_KNOCK"), F_OK) != 0))
        return false;
    for (uint32_t i = 0; i < KNOCK; i++)
        x[i] = (float)((i * (knocks + 1)) % 7) / 7.0f;
    pressed = false;
    knocks++;
    return true;
}

int device_button(void)
{
    if (pressed || knocks > KNOCKS)
        return -1;
    pressed = true;
    return (int)(knocks % BUTTONS);
}
