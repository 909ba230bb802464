/* What storage says of the last good model (fedtiny_storage.h): brought up, and what came up saved again. */
#include <string.h>

#include "../../../firmware/src/blob.h"
#include "../../../firmware/src/bytes.h"
#include "../../../firmware/src/wire/service.h"
#include "fedtiny_storage.h"
#include "fuzz.h"

enum { MEMORY = 48 << 10, AREA = 8 << 10, LENGTHS = 20, PARTS = 4, VALUES = 512 };

static struct {
    uint8_t areas[FT_AREA_SAMPLES][AREA];
    ft_service service;
    ft_saver saver;
    uint64_t memory[MEMORY / 8];
} all;

static int read(void *ctx, uint32_t area, uint32_t at, void *to, uint32_t count)
{
    (void)ctx;
    HOLDS(area < FT_AREA_SAMPLES && at <= AREA && count <= AREA - at);
    memcpy(to, all.areas[area] + at, count);
    return 0;
}

static int write(void *ctx, uint32_t area, uint32_t at, const void *from, uint32_t count)
{
    (void)ctx;
    HOLDS(area < FT_AREA_SAMPLES && at <= AREA && count <= AREA - at && at % FT_STORAGE_UNIT == 0 && count % FT_STORAGE_UNIT == 0);
    for (uint32_t i = 0; i < count; i++)
        HOLDS(all.areas[area][at + i] == 0xFF);
    memcpy(all.areas[area] + at, from, count);
    return 0;
}

static int erase(void *ctx, uint32_t area)
{
    (void)ctx;
    HOLDS(area < FT_AREA_SAMPLES);
    memset(all.areas[area], 0xFF, AREA);
    return 0;
}

static const ft_storage storage = {0, {AREA, AREA, 0}, read, write, erase};

/* The CRC of a slot whose parts lie inside, put right. */
static void repair(uint8_t *slot)
{
    uint64_t end = FT_SAVER_HEAD;
    for (uint32_t part = 0; part < PARTS; part++)
        end += ((uint64_t)ft_load_u32(slot + LENGTHS + 4 * part) + 7) / 8 * 8;
    if (end + 8 > AREA)
        return;
    uint32_t crc = ft_blob_crc(0xFFFFFFFFu, slot, (uint32_t)end);
    ft_store_u32(slot + end, ~crc);
    ft_store_u32(slot + end + 4, crc);
}

static bool start(void)
{
    ft_service_start(&all.service, all.memory, MEMORY, 0);
    return ft_saver_start(&all.saver, &all.service, 0, &storage);
}

/* Installs the values that the node has, in a round of its own: that saves the model. */
static void install(const float *values, uint32_t count)
{
    static const ft_wire_counts none;
    static ft_wire_task task;
    ft_wire_tasks tasks = ft_saver_tasks(&all.saver);
    ft_wire_reply reply = {0};
    bool have = false;
    memset(&task, 0, sizeof task);
    memcpy(task.run, all.saver.head + 8, sizeof task.run);
    task.round = ft_load_u32(all.saver.head + 16) + 1;
    task.kind = FT_DO_INSTALL;
    task.objects[0].ref.kind = FT_KIND_VALUES;
    task.objects[0].ref.length = 4 + 4 * count;
    task.object_count = 1;
    uint8_t *at = task.objects[0].at = tasks.place(tasks.ctx, &task, 0, &have, &reply);
    if (!at)
        return;
    memset(at, 0, 4);
    memcpy(at + 4, values, 4 * count);
    tasks.work(tasks.ctx, &task, &none, 1, &reply);
    HOLDS(reply.status == FT_OK);
}

/* u8 how: bits 0, 1, the slot's checksum is put right; u16 bytes of the first slot; both. */
void fuzz_saver(fuzz_input in)
{
    static float values[VALUES], again[VALUES];
    uint8_t how = fuzz_byte(&in);
    size_t first = fuzz_number(&in, 2);
    memset(all.areas, 0xFF, sizeof all.areas);
    for (uint32_t area = 0; area < FT_AREA_SAMPLES; area++) {
        size_t count = area == 0 && first < in.left ? first : in.left;
        count = count < AREA ? count : AREA;
        memcpy(all.areas[area], in.at, count);
        in.at += count;
        in.left -= count;
        if (how >> area & 1)
            repair(all.areas[area]);
    }
    bool there = start();
    HOLDS(there == (ft_service_node(&all.service) != 0));
    uint32_t count = there ? ft_value_count(ft_service_node(&all.service)) : 0;
    if (!there || count > VALUES)
        return;
    HOLDS(ft_get_values(ft_service_node(&all.service), values, count) == FT_OK);
    uint32_t saves = all.saver.saves;
    install(values, count);
    if (all.saver.saves == saves)
        return;
    HOLDS(all.saver.stored && start() && ft_value_count(ft_service_node(&all.service)) == count);
    HOLDS(ft_get_values(ft_service_node(&all.service), again, count) == FT_OK && memcmp(values, again, 4 * count) == 0);
}
