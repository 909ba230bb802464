/* Samples of an emulated node, in the file NAME.samples of this computer that it makes anew: as much as two sectors of an STM32F405. */
#include <string.h>

#include "../uart/board.h"
#include "semihosting.h"

enum { OPEN = 0x01, WRITE = 0x05, READ = 0x06, SEEK = 0x0A, MODE_NEW = 7 /* w+b */, BYTES = 2 * 0x20000, PATH = 1024 };

static int transfer(uintptr_t file, uint32_t operation, uint32_t at, const void *bytes, uint32_t count)
{
    uintptr_t seek[2] = {file, at}, block[3] = {file, (uintptr_t)bytes, count};
    return semihosting_call(SEEK, seek) != 0 || semihosting_call(operation, block) != 0;
}

static int read_at(void *ctx, uint32_t area, uint32_t at, void *to, uint32_t count)
{
    (void)area;
    return transfer(*(uintptr_t *)ctx, READ, at, to, count);
}

static int write_at(void *ctx, uint32_t area, uint32_t at, const void *from, uint32_t count)
{
    (void)area;
    return transfer(*(uintptr_t *)ctx, WRITE, at, from, count);
}

static int erase(void *ctx, uint32_t area)
{
    (void)ctx;
    (void)area;
    return 0;
}

const ft_storage *board_areas(const char *name)
{
    static const char ending[] = ".samples";
    static uintptr_t file;
    static const ft_storage storage = {&file, {[FT_AREA_SAMPLES] = BYTES}, read_at, write_at, erase};
    static char path[PATH];
    size_t length = strlen(name);
    if (length + sizeof ending > sizeof path)
        return NULL;
    memcpy(path, name, length);
    memcpy(path + length, ending, sizeof ending);
    uintptr_t block[3] = {(uintptr_t)path, MODE_NEW, strlen(path)};
    file = semihosting_call(OPEN, block);
    return (uint32_t)file == (uint32_t)-1 ? NULL : &storage;
}
