#define _POSIX_C_SOURCE 200809L
#include "storage.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MODEL_BYTES = 1 << 26, SAMPLES_BYTES = 1 << 30 };

static int read_slot(void *path, uint32_t half, uint32_t slot, uint8_t *to)
{
    int file = open(path, O_RDONLY);
    (void)slot;
    if (file < 0)
        return 1;
    int failed = pread(file, to, RECORD_SLOT, (off_t)half * RECORD_SLOT) != RECORD_SLOT;
    close(file);
    return failed;
}

static int write_slot(void *path, uint32_t half, uint32_t slot, const uint8_t *from)
{
    int file = open(path, O_WRONLY | O_CREAT, 0600);
    (void)slot;
    if (file < 0)
        return 1;
    int failed = pwrite(file, from, RECORD_SLOT, (off_t)half * RECORD_SLOT) != RECORD_SLOT;
    failed |= fsync(file) != 0;
    return close(file) != 0 || failed;
}

static int erase_half(void *path, uint32_t half)
{
    (void)path;
    (void)half;
    return 0;
}

record_storage posix_storage(const char *path)
{
    return (record_storage){(void *)(uintptr_t)path, 1, read_slot, write_slot, erase_half};
}

static int open_area(const char *record, uint32_t area, int how)
{
    static const char *const names[FT_AREAS] = {"model-0", "model-1", "samples"};
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s.%s", record, names[area]);
    return length > 0 && length < (int)sizeof path ? open(path, how, 0600) : -1;
}

static int read_area(void *record, uint32_t area, uint32_t at, void *to, uint32_t count)
{
    int file = open_area(record, area, O_RDONLY);
    memset(to, 0xFF, count);
    if (file < 0)
        return 0;
    int failed = pread(file, to, count, (off_t)at) < 0;
    close(file);
    return failed;
}

static int write_area(void *record, uint32_t area, uint32_t at, const void *from, uint32_t count)
{
    int file = open_area(record, area, O_WRONLY | O_CREAT);
    if (file < 0)
        return 1;
    int failed = pwrite(file, from, count, (off_t)at) != (ssize_t)count;
    failed |= fsync(file) != 0;
    return close(file) != 0 || failed;
}

static int erase_area(void *record, uint32_t area)
{
    int file = open_area(record, area, O_WRONLY | O_CREAT | O_TRUNC);
    return file < 0 || close(file) != 0;
}

ft_storage posix_areas(const char *path)
{
    return (ft_storage){(void *)(uintptr_t)path, {MODEL_BYTES, MODEL_BYTES, SAMPLES_BYTES}, read_area, write_area, erase_area};
}
