#include "receive.h"

#include "board.h"

/* Each index is written by one side alone, so the two need no lock; they run on and wrap by themselves. */
static uint8_t ring[RECEIVE_BYTES];
static volatile uint32_t put, taken;

void receive_put(uint8_t byte)
{
    uint32_t at = put;
    if (at - taken == RECEIVE_BYTES)
        return;
    ring[at % RECEIVE_BYTES] = byte;
    __asm__ volatile("" ::: "memory"); /* the byte is there before it counts */
    put = at + 1;
}

int receive_waiting(void) { return put != taken; }

uint32_t board_receive(uint8_t *to, uint32_t capacity)
{
    uint32_t from = taken, count = put - from;
    if (count > capacity)
        count = capacity;
    __asm__ volatile("" ::: "memory");
    for (uint32_t i = 0; i < count; i++)
        to[i] = ring[(from + i) % RECEIVE_BYTES];
    __asm__ volatile("" ::: "memory"); /* the bytes are out before their place is free */
    taken = from + count;
    return count;
}
