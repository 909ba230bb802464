/* port.h on a host. */
#include "../port.h"

#include <stdio.h>
#include <stdlib.h>

void *port_memory(uint32_t *bytes)
{
    static uint64_t memory[1 << 21];
    *bytes = sizeof memory;
    return memory;
}

void port_print(const char *text) { fputs(text, stdout); }

void port_print_number(uint64_t number) { printf("%llu", (unsigned long long)number); }

uint32_t port_read_file(const char *path, void *to, uint32_t capacity)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return PORT_FAILED;
    size_t length = fread(to, 1, capacity, file);
    int more = length == capacity && fgetc(file) != EOF, failed = ferror(file);
    fclose(file);
    return more || failed ? PORT_FAILED : (uint32_t)length;
}

int port_write_file(const char *path, const void *from, uint32_t bytes)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return 1;
    int failed = fwrite(from, 1, bytes, file) != bytes;
    return fclose(file) != 0 || failed;
}

uint64_t port_count(void) { return 0; }

void port_exit(int code) { exit(code); }
