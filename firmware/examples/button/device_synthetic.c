/* Knocks at wood and at glass, in a hurry: one each 20 ms. Somebody presses a button 8 ms after it; after each fifth nobody does. */
#include "device.h"
#include "uart/board.h"

enum { KNOCKS = 60, EACH_MS = 20, LATER_MS = 8, NOBODY = 5 };

static uint32_t knocks, noise = 1;
static bool pressed = true;

void device_start(void) {}

static float random_number(void)
{
    noise = noise * 1664525u + 1013904223u;
    return (float)(noise >> 8) / (float)(1 << 23) - 1.0f;
}

static uint32_t material(uint32_t knock) { return knock * 7 / 3 % BUTTONS; }

bool device_knock(float x[KNOCK])
{
    if (knocks == KNOCKS || board_now_ms() < (knocks + 1) * EACH_MS)
        return false;
    uint32_t period = material(knocks) ? 5 : 9;
    float loud = 2.0f;
    for (uint32_t i = 0; i < KNOCK; i++) {
        x[i] = (i % period < period / 2 ? loud : -loud) + 0.3f * random_number();
        loud *= material(knocks) ? 0.98f : 0.93f;
    }
    knocks++;
    pressed = knocks % NOBODY == 0;
    return true;
}

int device_button(void)
{
    if (pressed || board_now_ms() < knocks * EACH_MS + LATER_MS)
        return -1;
    pressed = true;
    return (int)material(knocks - 1);
}
