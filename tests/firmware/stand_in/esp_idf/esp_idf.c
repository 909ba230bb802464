/* ESP-IDF on a host: the UART is standard input and output, NVS a file, time and memory this computer's. main calls app_main.
 * argv[1]: the file; argv[2]: bytes of the heap's largest block. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "driver/uart.h"
#include "esp_app_desc.h"
#include "esp_heap_caps.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "esp_partition.h"
#include "nvs.h"
#include "nvs_flash.h"

enum { BLOB = 256, TICK_MS = 1000 / configTICK_RATE_HZ };

void app_main(void);
static const char *file_name;
static size_t largest_block;
static uint8_t blob[BLOB];
static size_t blob_bytes;
static int nvs_ready, uart_ready;

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    file_name = argv[1];
    largest_block = strtoul(argv[2], NULL, 10);
    app_main();
    return 3; /* a node never returns */
}

/* -- UART: with what a boot loader says first */

esp_err_t uart_driver_install(uart_port_t port, int in, int out, int items, QueueHandle_t *queue, int flags)
{
    static const char greeting[] = "ESP-ROM:stand-in\r\nrst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n";
    (void)queue;
    if (port != UART_NUM_0 || in <= 128 || out < 0 || items != 0 || flags != 0)
        return ESP_ERR_INVALID_ARG;
    return write(1, greeting, sizeof greeting - 1) > 0 ? ESP_OK : ESP_FAIL;
}

esp_err_t uart_param_config(uart_port_t port, const uart_config_t *config)
{
    uart_ready = port == UART_NUM_0 && config->baud_rate > 0 && config->data_bits == UART_DATA_8_BITS
                 && config->stop_bits == UART_STOP_BITS_1;
    return uart_ready ? ESP_OK : ESP_ERR_INVALID_ARG;
}

esp_err_t uart_set_pin(uart_port_t port, int tx, int rx, int rts, int cts)
{
    (void)tx;
    (void)rx;
    return port == UART_NUM_0 && rts == UART_PIN_NO_CHANGE && cts == UART_PIN_NO_CHANGE ? ESP_OK : ESP_ERR_INVALID_ARG;
}

int uart_read_bytes(uart_port_t port, void *to, uint32_t bytes, TickType_t ticks)
{
    uint32_t have = 0;
    int64_t end = esp_timer_get_time() / 1000 + (int64_t)ticks * TICK_MS;
    if (port != UART_NUM_0 || !uart_ready)
        return -1;
    while (have < bytes) {
        int64_t left = end - esp_timer_get_time() / 1000;
        struct pollfd line = {0, POLLIN, 0};
        if (poll(&line, 1, left > 0 ? (int)left : 0) <= 0)
            break;
        ssize_t count = read(0, (char *)to + have, bytes - have);
        if (count <= 0)
            exit(0); /* the cable is out */
        have += (uint32_t)count;
    }
    return (int)have;
}

int uart_write_bytes(uart_port_t port, const void *from, size_t bytes)
{
    size_t sent = 0;
    if (port != UART_NUM_0 || !uart_ready)
        return -1;
    while (sent < bytes) {
        ssize_t count = write(1, (const char *)from + sent, bytes - sent);
        if (count > 0)
            sent += (size_t)count;
        else if (errno == EAGAIN)
            poll(&(struct pollfd){1, POLLOUT, 0}, 1, -1);
        else
            exit(0);
    }
    return (int)sent;
}

esp_err_t uart_get_buffered_data_len(uart_port_t port, size_t *bytes)
{
    int count = 0;
    if (port != UART_NUM_0 || ioctl(0, FIONREAD, &count) != 0)
        return ESP_FAIL;
    *bytes = (size_t)count;
    return ESP_OK;
}

/* -- NVS: what is set is there after a commit */

esp_err_t nvs_flash_init(void)
{
    nvs_ready = 1;
    return ESP_OK;
}

esp_err_t nvs_open(const char *space, nvs_open_mode_t mode, nvs_handle_t *nvs)
{
    FILE *file = fopen(file_name, "rb");
    if (!nvs_ready || strlen(space) > 15)
        return ESP_ERR_INVALID_STATE;
    blob_bytes = file ? fread(blob, 1, sizeof blob, file) : 0;
    if (file)
        fclose(file);
    *nvs = mode == NVS_READWRITE ? 2 : 1;
    return file || mode == NVS_READWRITE ? ESP_OK : ESP_ERR_NOT_FOUND;
}

esp_err_t nvs_get_blob(nvs_handle_t nvs, const char *name, void *to, size_t *bytes)
{
    if (!nvs || strlen(name) > 15 || blob_bytes == 0 || blob_bytes > *bytes)
        return ESP_ERR_NOT_FOUND;
    memcpy(to, blob, blob_bytes);
    *bytes = blob_bytes;
    return ESP_OK;
}

esp_err_t nvs_set_blob(nvs_handle_t nvs, const char *name, const void *from, size_t bytes)
{
    if (nvs != 2 || strlen(name) > 15 || bytes > sizeof blob)
        return ESP_ERR_INVALID_STATE;
    memcpy(blob, from, bytes);
    blob_bytes = bytes;
    return ESP_OK;
}

esp_err_t nvs_commit(nvs_handle_t nvs)
{
    char made[4096];
    FILE *file;
    if (nvs != 2 || snprintf(made, sizeof made, "%s.new", file_name) >= (int)sizeof made || !(file = fopen(made, "wb")))
        return ESP_FAIL;
    size_t wrote = fwrite(blob, 1, blob_bytes, file);
    return fclose(file) == 0 && wrote == blob_bytes && rename(made, file_name) == 0 ? ESP_OK : ESP_FAIL;
}

void nvs_close(nvs_handle_t nvs) { (void)nvs; }

/* -- A partition of flash, in a file beside NVS's: bits are set by erasing sectors and cleared by writing */

enum { SECTOR = 4096 };
static uint8_t flash[1 << 20];

static FILE *open_partition(const char *how)
{
    char path[4096];
    return snprintf(path, sizeof path, "%s.partition", file_name) < (int)sizeof path ? fopen(path, how) : NULL;
}

const esp_partition_t *esp_partition_find_first(esp_partition_type_t type, esp_partition_subtype_t subtype, const char *label)
{
    static esp_partition_t partition;
    FILE *file = open_partition("rb");
    if (!file || type != ESP_PARTITION_TYPE_DATA || subtype != ESP_PARTITION_SUBTYPE_ANY || strcmp(label, "fedtiny") != 0)
        return NULL;
    partition.size = (uint32_t)fread(flash, 1, sizeof flash, file);
    fclose(file);
    return &partition;
}

static esp_err_t save_partition(const esp_partition_t *partition)
{
    FILE *file = open_partition("r+b");
    if (!file)
        return ESP_FAIL;
    size_t wrote = fwrite(flash, 1, partition->size, file);
    return fclose(file) == 0 && wrote == partition->size ? ESP_OK : ESP_FAIL;
}

esp_err_t esp_partition_read(const esp_partition_t *partition, size_t at, void *to, size_t bytes)
{
    if (at > partition->size || bytes > partition->size - at)
        return ESP_ERR_INVALID_STATE;
    memcpy(to, flash + at, bytes);
    return ESP_OK;
}

esp_err_t esp_partition_write(const esp_partition_t *partition, size_t at, const void *from, size_t bytes)
{
    if (at > partition->size || bytes > partition->size - at)
        return ESP_ERR_INVALID_STATE;
    for (size_t i = 0; i < bytes; i++)
        flash[at + i] &= ((const uint8_t *)from)[i];
    return save_partition(partition);
}

esp_err_t esp_partition_erase_range(const esp_partition_t *partition, size_t at, size_t bytes)
{
    if (at % SECTOR || bytes % SECTOR || at > partition->size || bytes > partition->size - at)
        return ESP_ERR_INVALID_STATE;
    memset(flash + at, 0xFF, bytes);
    return save_partition(partition);
}

/* -- The system */

int64_t esp_timer_get_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void esp_fill_random(void *to, size_t bytes)
{
    if (getentropy(to, bytes) != 0)
        abort();
}

size_t heap_caps_get_largest_free_block(uint32_t caps) { return caps == MALLOC_CAP_8BIT ? largest_block : 0; }

void *heap_caps_aligned_alloc(size_t alignment, size_t bytes, uint32_t caps)
{
    void *made = NULL;
    int here = caps == MALLOC_CAP_INTERNAL || (caps == MALLOC_CAP_8BIT && bytes <= largest_block);
    return here && posix_memalign(&made, alignment, bytes) == 0 ? made : NULL;
}

esp_reset_reason_t esp_reset_reason(void) { return ESP_RST_POWERON; }

const esp_app_desc_t *esp_app_get_description(void)
{
    static const esp_app_desc_t description = {{1, 2, 3, 4, 5, 6, 7, 8}};
    return &description;
}

/* -- FreeRTOS: queues */

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t put;
    UBaseType_t length, item_bytes, first, count;
    uint8_t items[];
};

QueueHandle_t xQueueCreate(UBaseType_t length, UBaseType_t item_bytes)
{
    QueueHandle_t queue = calloc(1, sizeof *queue + (size_t)length * item_bytes);
    if (!queue)
        return NULL;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->put, NULL);
    queue->length = length;
    queue->item_bytes = item_bytes;
    return queue;
}

BaseType_t xQueueSend(QueueHandle_t queue, const void *item, TickType_t ticks)
{
    (void)ticks; /* the port never waits for room */
    pthread_mutex_lock(&queue->lock);
    int room = queue->count < queue->length;
    if (room) {
        memcpy(queue->items + (size_t)((queue->first + queue->count++) % queue->length) * queue->item_bytes, item, queue->item_bytes);
        pthread_cond_signal(&queue->put);
    }
    pthread_mutex_unlock(&queue->lock);
    return room ? pdTRUE : pdFALSE;
}

BaseType_t xQueueReceive(QueueHandle_t queue, void *item, TickType_t ticks)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + (uint64_t)ticks * TICK_MS * 1000000;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&queue->lock);
    while (queue->count == 0 && pthread_cond_timedwait(&queue->put, &queue->lock, &until) == 0)
        ;
    int have = queue->count > 0;
    if (have) {
        memcpy(item, queue->items + (size_t)queue->first * queue->item_bytes, queue->item_bytes);
        queue->first = (queue->first + 1) % queue->length;
        queue->count--;
    }
    pthread_mutex_unlock(&queue->lock);
    return have ? pdTRUE : pdFALSE;
}
