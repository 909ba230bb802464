/* board.h on a host: the UART is standard input and output. With port/uart/main.c, port.c and storage.c a node that a host talks to
 * through a pipe; it ends when the line does. PORTING.md builds it. */
#define _POSIX_C_SOURCE 200809L
#include "../uart/board.h"

#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "storage.h"

static uint32_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u);
}

static uint32_t start_ms;

void board_start(void) { start_ms = milliseconds(); }
uint32_t board_now_ms(void) { return milliseconds() - start_ms; }

/* Whether a byte is there within so long. */
static int wait_for_byte(uint32_t ms)
{
    struct pollfd in = {STDIN_FILENO, POLLIN, 0};
    return poll(&in, 1, ms > 0x7FFFFFFF ? -1 : (int)ms) > 0;
}

uint32_t board_receive(uint8_t *to, uint32_t capacity)
{
    if (!wait_for_byte(0))
        return 0;
    ssize_t count = read(STDIN_FILENO, to, capacity);
    if (count <= 0)
        exit(0);
    return (uint32_t)count;
}

uint32_t board_send(const uint8_t *from, uint32_t bytes)
{
    ssize_t count = write(STDOUT_FILENO, from, bytes);
    return count > 0 ? (uint32_t)count : 0;
}

void board_sleep(uint32_t ms) { wait_for_byte(ms); }

const record_storage *board_storage(const char *name)
{
    static record_storage storage;
    storage = posix_storage(name);
    return &storage;
}

const ft_storage *board_areas(const char *name)
{
    static ft_storage areas;
    areas = posix_areas(name);
    return &areas;
}

uint8_t board_reset_reason(void) { return 1; }
