#include "chip.h"

#include <string.h>

#include "esp_app_desc.h"
#include "esp_heap_caps.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "nvs.h"
#include "sdkconfig.h"

static const char space[] = "fedtiny", name[] = "record";
enum { LONGEST_MS = 60000 };

static uint32_t now_ms(void *ctx)
{
    (void)ctx;
    return (uint32_t)(esp_timer_get_time() / 1000);
}

static void fill_random(void *ctx, uint8_t *bytes, size_t count)
{
    (void)ctx;
    esp_fill_random(bytes, count);
}

/* NVS itself keeps the old blob until the new one is whole. */
static int load(void *ctx, uint8_t record[FT_WIRE_RECORD])
{
    nvs_handle_t nvs;
    size_t bytes = FT_WIRE_RECORD;
    (void)ctx;
    if (nvs_open(space, NVS_READONLY, &nvs) != ESP_OK)
        return 1;
    esp_err_t error = nvs_get_blob(nvs, name, record, &bytes);
    nvs_close(nvs);
    return error != ESP_OK || bytes != FT_WIRE_RECORD;
}

static int store(void *ctx, const uint8_t record[FT_WIRE_RECORD])
{
    nvs_handle_t nvs;
    (void)ctx;
    if (nvs_open(space, NVS_READWRITE, &nvs) != ESP_OK)
        return 1;
    esp_err_t error = nvs_set_blob(nvs, name, record, FT_WIRE_RECORD);
    if (error == ESP_OK)
        error = nvs_commit(nvs);
    nvs_close(nvs);
    return error != ESP_OK;
}

static uint8_t reset_reason(void)
{
    switch (esp_reset_reason()) {
    case ESP_RST_POWERON:
        return 1;
    case ESP_RST_EXT:
        return 2;
    case ESP_RST_INT_WDT:
    case ESP_RST_TASK_WDT:
    case ESP_RST_WDT:
        return 3;
    case ESP_RST_SW:
        return 4;
    case ESP_RST_BROWNOUT:
        return 5;
    case ESP_RST_PANIC:
        return 6;
    default:
        return 0;
    }
}

fedtiny_piece fedtiny_memory(uint32_t left)
{
    size_t largest = heap_caps_get_largest_free_block(MALLOC_CAP_8BIT);
    fedtiny_piece piece = {NULL, 0};
    if (largest > left + 8) {
        piece.bytes = (uint32_t)(largest - left) & ~7u;
        piece.at = heap_caps_aligned_alloc(8, piece.bytes, MALLOC_CAP_8BIT);
    }
    return piece;
}

static ft_bank bank; /* at NULL: none */

void fedtiny_bank(fedtiny_piece piece) { bank = (ft_bank){piece.at, piece.bytes}; }

TickType_t chip_ticks(uint32_t ms)
{
    TickType_t ticks = pdMS_TO_TICKS(ms < LONGEST_MS ? ms : LONGEST_MS);
    return ticks == 0 && ms > 0 ? 1 : ticks; /* less than a tick is no reason to spin */
}

esp_err_t chip_start(ft_wire *wire, ft_service *service, ft_wire_facts *facts, chip_write write, fedtiny_piece memory,
                     const ft_data *own)
{
    static ft_wire_port port; /* the wire reads it as long as it runs: one node a program */
    static ft_saver saver;
    port = (ft_wire_port){NULL, now_ms, write, fill_random, load, store};
    if (!memory.at)
        return ESP_ERR_NO_MEM;
    facts->device = "new";
    facts->board = CONFIG_IDF_TARGET;
    memcpy(facts->firmware, esp_app_get_description()->app_elf_sha256, sizeof facts->firmware);
    facts->reset_reason = reset_reason();
    facts->exchange = &ft_wire_x25519;
    ft_service_start(service, memory.at, memory.bytes, own);
    if (bank.at)
        ft_service_banks(service, &bank, 1);
    if (ft_wire_start(wire, &port, facts, ft_service_tasks(service)) != FT_OK)
        return ESP_ERR_INVALID_STATE;
    ft_saver_start(&saver, service, wire, chip_areas());
    return ESP_OK;
}
