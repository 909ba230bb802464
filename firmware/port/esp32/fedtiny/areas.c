/* Models in a partition of flash: its two halves are the two slots. */
#include "chip.h"

#include "esp_partition.h"

enum { SECTOR = 4096, AREAS = 2 };

static uint32_t half_of(const esp_partition_t *partition) { return (uint32_t)partition->size / AREAS / SECTOR * SECTOR; }

static int read_area(void *ctx, uint32_t area, uint32_t at, void *to, uint32_t count)
{
    return esp_partition_read(ctx, area * half_of(ctx) + at, to, count) != ESP_OK;
}

static int write_area(void *ctx, uint32_t area, uint32_t at, const void *from, uint32_t count)
{
    return esp_partition_write(ctx, area * half_of(ctx) + at, from, count) != ESP_OK;
}

static int erase_area(void *ctx, uint32_t area)
{
    return esp_partition_erase_range(ctx, area * half_of(ctx), half_of(ctx)) != ESP_OK;
}

const ft_storage *chip_areas(void)
{
    static ft_storage areas = {0, {0}, read_area, write_area, erase_area};
    const esp_partition_t *found = esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_ANY, "fedtiny");
    if (!found)
        return NULL;
    areas.ctx = (void *)(uintptr_t)found;
    areas.bytes[FT_AREA_MODEL_0] = areas.bytes[FT_AREA_MODEL_1] = half_of(found);
    return &areas;
}
