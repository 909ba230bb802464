/* The storage of an emulated node, in files of this computer: the record's two slots one after the other in NAME, models in
 * NAME.model-0 and NAME.model-1, samples in NAME.samples. */
#include <string.h>

#include "../uart/board.h"
#include "semihosting.h"

enum { OPEN = 0x01, CLOSE = 0x02, WRITE = 0x05, READ = 0x06, SEEK = 0x0A };
enum { LONGEST_NAME = 400, MODEL_BYTES = 0x20000, SAMPLES_BYTES = 0x40000 }; /* as in the flash of an STM32F405 */
enum { MODE_READ = 1 /* rb */, MODE_CHANGE = 3 /* r+b */, MODE_NEW = 5 /* wb */ };
static const uintptr_t failed = (uint32_t)-1;

static uintptr_t open_file(const char *path, uint32_t mode)
{
    uintptr_t block[3] = {(uintptr_t)path, mode, strlen(path)};
    return semihosting_call(OPEN, block);
}

/* Bytes that were not read or written. */
static uint32_t transfer(uintptr_t file, uint32_t at, uint32_t operation, const void *bytes, uint32_t count)
{
    if (file == failed)
        return count;
    uintptr_t seek[2] = {file, at}, block[3] = {file, (uintptr_t)bytes, count};
    uint32_t left = semihosting_call(SEEK, seek) != 0 ? count : (uint32_t)semihosting_call(operation, block);
    semihosting_call(CLOSE, &file);
    return left;
}

static uintptr_t open_to_write(const char *path)
{
    uintptr_t file = open_file(path, MODE_CHANGE);
    return file == failed ? open_file(path, MODE_NEW) : file;
}

static int read_slot(void *path, uint32_t half, uint32_t slot, uint8_t *to)
{
    (void)slot;
    return transfer(open_file(path, MODE_READ), half * RECORD_SLOT, READ, to, RECORD_SLOT) != 0;
}

static int write_slot(void *path, uint32_t half, uint32_t slot, const uint8_t *from)
{
    (void)slot;
    return transfer(open_to_write(path), half * RECORD_SLOT, WRITE, from, RECORD_SLOT) != 0;
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

/* NULL: the name is too long. */
static const char *area_path(const char *record, uint32_t area)
{
    static const char *const ends[FT_AREAS] = {".model-0", ".model-1", ".samples"};
    static char path[LONGEST_NAME];
    size_t length = strlen(record), end = strlen(ends[area]) + 1;
    if (length + end > sizeof path)
        return 0;
    memcpy(path, record, length);
    memcpy(path + length, ends[area], end);
    return path;
}

static int read_area(void *record, uint32_t area, uint32_t at, void *to, uint32_t count)
{
    const char *path = area_path(record, area);
    memset(to, 0xFF, count);
    if (path)
        transfer(open_file(path, MODE_READ), at, READ, to, count);
    return path == 0;
}

static int write_area(void *record, uint32_t area, uint32_t at, const void *from, uint32_t count)
{
    const char *path = area_path(record, area);
    return !path || transfer(open_to_write(path), at, WRITE, from, count) != 0;
}

static int erase_area(void *record, uint32_t area)
{
    const char *path = area_path(record, area);
    uintptr_t file = path ? open_file(path, MODE_NEW) : failed;
    if (file == failed)
        return 1;
    semihosting_call(CLOSE, &file);
    return 0;
}

const ft_storage *board_areas(const char *name)
{
    static ft_storage areas = {0, {MODEL_BYTES, MODEL_BYTES, SAMPLES_BYTES}, read_area, write_area, erase_area};
    areas.ctx = (void *)(uintptr_t)name;
    return &areas;
}
