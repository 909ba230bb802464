/* The record of an emulated node, in a file of this computer: its two slots one after the other. */
#include <string.h>

#include "../uart/board.h"
#include "semihosting.h"

enum { OPEN = 0x01, CLOSE = 0x02, WRITE = 0x05, READ = 0x06, SEEK = 0x0A };
enum { MODE_READ = 1 /* rb */, MODE_CHANGE = 3 /* r+b */, MODE_NEW = 5 /* wb */ };
static const uintptr_t failed = (uint32_t)-1;

static uintptr_t open_file(const char *path, uint32_t mode)
{
    uintptr_t block[3] = {(uintptr_t)path, mode, strlen(path)};
    return semihosting_call(OPEN, block);
}

static int transfer(uintptr_t file, uint32_t half, uint32_t operation, const uint8_t *bytes)
{
    if (file == failed)
        return 1;
    uintptr_t seek[2] = {file, half * RECORD_SLOT}, block[3] = {file, (uintptr_t)bytes, RECORD_SLOT};
    int bad = semihosting_call(SEEK, seek) != 0 || semihosting_call(operation, block) != 0;
    semihosting_call(CLOSE, &file);
    return bad;
}

static int read_slot(void *path, uint32_t half, uint32_t slot, uint8_t *to)
{
    (void)slot;
    return transfer(open_file(path, MODE_READ), half, READ, to);
}

static int write_slot(void *path, uint32_t half, uint32_t slot, const uint8_t *from)
{
    uintptr_t file = open_file(path, MODE_CHANGE);
    (void)slot;
    return transfer(file == failed ? open_file(path, MODE_NEW) : file, half, WRITE, from);
}

static int erase_half(void *path, uint32_t half)
{
    (void)path;
    (void)half;
    return 0;
}

const record_storage *board_storage(const char *name)
{
    static record_storage storage = {0, 1, read_slot, write_slot, erase_half};
    storage.ctx = (void *)(uintptr_t)name;
    return &storage;
}
