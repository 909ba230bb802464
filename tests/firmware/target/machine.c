/* One use of the port for each word of the command line. */
#include <string.h>

#include "port.h"

#if defined(__arm__)
#define TWO_INSTRUCTIONS_EACH(n) __asm__ volatile("1: subs %0, %0, #1\n\tbne 1b" : "+r"(n) : : "cc")
#elif defined(__riscv)
#define TWO_INSTRUCTIONS_EACH(n) __asm__ volatile("1: addi %0, %0, -1\n\tbnez %0, 1b" : "+r"(n))
#else
#define TWO_INSTRUCTIONS_EACH(n) (void)(n)
#endif

static uint32_t written = 0x12345678; /* starts in flash, is copied */
static uint32_t cleared;

static int deeper(volatile uint8_t *above)
{
    volatile uint8_t frame[512];
    frame[0] = (uint8_t)(above[0] + 1);
    return deeper(frame) + frame[0];
}

static void print_line(const char *what, uint64_t number)
{
    port_print(what);
    port_print(" ");
    port_print_number(number);
    port_print("\n");
}

/* The loop's own instructions: two calls in a row give those of the call. */
static void count_loop(uint32_t n)
{
    uint64_t a = port_count(), b = port_count();
    TWO_INSTRUCTIONS_EACH(n);
    uint64_t c = port_count();
    print_line("loop", (c - b) - (b - a));
}

static void copy_file(const char *from, const char *to)
{
    uint32_t capacity;
    uint8_t *memory = port_memory(&capacity);
    uint32_t bytes = port_read_file(from, memory, capacity);
    print_line("read", bytes);
    if (bytes != PORT_FAILED)
        print_line("written", (uint64_t)port_write_file(to, memory, bytes));
    print_line("too long", port_read_file(from, memory, bytes - 1));
}

int main(int argc, char **argv)
{
    uint32_t bytes;
    uint8_t *memory = port_memory(&bytes);
    const char *task = argc > 1 ? argv[1] : "";
    uint8_t top = 0;
    if (strcmp(task, "start") == 0) {
        print_line("data", written == 0x12345678 && cleared == 0);
        print_line("aligned", ((uintptr_t)memory & 7) == 0);
        memset(memory, 0xFF, bytes); /* all of it is there, and nobody else's */
        print_line("bytes", bytes);
    } else if (strcmp(task, "count") == 0) {
        count_loop(1000);
        count_loop(1001);
        count_loop(3000000);
    } else if (strcmp(task, "round") == 0) { /* 1.6 G instructions: more than any of the timers holds at 128 ns each */
        for (int i = 0; i < 4; i++)
            count_loop(200000000);
    } else if (strcmp(task, "copy") == 0 && argc == 4) {
        copy_file(argv[2], argv[3]);
    } else if (strcmp(task, "fault") == 0) {
        port_print("before\n");
        written = *(volatile uint32_t *)0xF0000000u;
    } else if (strcmp(task, "undefined") == 0) {
        __builtin_trap();
    } else if (strcmp(task, "overflow") == 0) {
        return deeper(&top);
    } else if (strcmp(task, "forever") == 0) {
        port_print("still here");
        for (;;)
            cleared++;
    }
    return argc;
}
