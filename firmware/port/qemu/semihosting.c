#include "semihosting.h"

#include <stddef.h>
#include <string.h>

#include "../port.h"
#include "../start.h"

enum { OPEN = 0x01, CLOSE = 0x02, PRINT = 0x04, WRITE = 0x05, READ = 0x06, LENGTH = 0x0C, COMMAND_LINE = 0x15, EXIT = 0x20 };
enum { MODE_READ = 1 /* rb */, MODE_WRITE = 5 /* wb */, REASON_EXIT = 0x20026, FAULT = 99, MAX_ARGUMENTS = 64, LINE = 1024 };

int main(int argc, char **argv);
extern char link_memory_start[], link_memory_end[];

void *port_memory(uint32_t *bytes)
{
    *bytes = (uint32_t)(link_memory_end - link_memory_start);
    return link_memory_start;
}

void port_print(const char *text) { semihosting_call(PRINT, text); }

void port_print_number(uint64_t number)
{
    char digits[21], *at = digits + sizeof digits;
    *--at = 0;
    do
        *--at = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    port_print(at);
}

static uint32_t open_file(const char *path, uint32_t mode)
{
    uintptr_t block[3] = {(uintptr_t)path, mode, strlen(path)};
    return semihosting_call(OPEN, block);
}

static void close_file(uintptr_t file) { semihosting_call(CLOSE, &file); }

uint32_t port_read_file(const char *path, void *to, uint32_t capacity)
{
    uintptr_t file = open_file(path, MODE_READ);
    if ((uint32_t)file == PORT_FAILED)
        return PORT_FAILED;
    uint32_t length = semihosting_call(LENGTH, &file);
    uintptr_t block[3] = {file, (uintptr_t)to, length};
    if (length > capacity || (length && semihosting_call(READ, block) != 0))
        length = PORT_FAILED;
    close_file(file);
    return length;
}

int port_write_file(const char *path, const void *from, uint32_t bytes)
{
    uintptr_t file = open_file(path, MODE_WRITE);
    if ((uint32_t)file == PORT_FAILED)
        return 1;
    uintptr_t block[3] = {file, (uintptr_t)from, bytes};
    int failed = bytes && semihosting_call(WRITE, block) != 0;
    close_file(file);
    return failed;
}

void port_exit(int code)
{
    uintptr_t block[2] = {REASON_EXIT, (uintptr_t)code};
    for (;;)
        semihosting_call(EXIT, block);
}

void start_fault(void) { port_exit(FAULT); }

void start_program(void)
{
    static char line[LINE];
    char *argv[MAX_ARGUMENTS + 1];
    int argc = 0;
    uintptr_t block[2] = {(uintptr_t)line, sizeof line};
    if (semihosting_call(COMMAND_LINE, block) != 0) {
        port_print("the port takes no longer command line\n");
        port_exit(FAULT);
    }
    for (char *at = line; *at && argc < MAX_ARGUMENTS;) {
        argv[argc++] = at;
        while (*at && *at != ' ')
            at++;
        if (*at)
            *at++ = 0;
    }
    argv[argc] = NULL;
    count_start();
    int code = main(argc, argv);
    uint64_t count = port_count();
    if (strcmp(line, "count") == 0) {
        port_print("\ninstructions ");
        port_print_number(count);
        port_print("\n");
    }
    port_exit(code);
}
