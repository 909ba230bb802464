/* esp-mqtt calls back in a task of its own: it only fills a queue and says `online`, all else happens in the node's task. */
#include <stdbool.h>
#include <string.h>

#include "../../mqtt/topics.h"
#include "freertos/FreeRTOS.h"
#include "freertos/queue.h"
#include "mqtt_client.h"
#include "chip.h"

enum { QUEUE = 8, KEEPALIVE_S = 20, RECONNECT_MS = 2000, CAPS = 128 };

typedef struct {
    uint16_t bytes;
    uint8_t data[FT_WIRE_FRAME];
} frame;

static struct {
    esp_mqtt_client_handle_t client;
    QueueHandle_t frames;
    ft_wire wire;
    ft_service service;
    ft_wire_facts facts;
    const char *fleet;
    char state[TOPIC_BYTES], down[TOPIC_BYTES];
    frame coming; /* large messages come in pieces */
    uint8_t caps[CAPS];
    volatile size_t caps_bytes;
    volatile bool online;
} node;

static void publish(const topic_message *message)
{
    char topic[TOPIC_BYTES];
    if (topic_write(topic, node.fleet, ft_wire_device(&node.wire), message->what) == 0)
        esp_mqtt_client_publish(node.client, topic, (const char *)message->payload, (int)message->bytes, message->qos,
                                message->retained);
}

/* A frame that finds the queue full is lost, and asked for again. */
static void take_piece(const esp_mqtt_event_t *event)
{
    size_t at = (size_t)event->current_data_offset, count = (size_t)event->data_len, all = (size_t)event->total_data_len;
    if (all > sizeof node.coming.data || at + count > all)
        return;
    memcpy(node.coming.data + at, event->data, count);
    if (at + count < all)
        return;
    node.coming.bytes = (uint16_t)all;
    xQueueSend(node.frames, &node.coming, 0);
}

static void on_event(void *ctx, esp_event_base_t base, int32_t id, void *data)
{
    const topic_message caps = {"caps", 1, 1, node.caps, node.caps_bytes};
    (void)ctx;
    (void)base;
    switch (id) {
    case MQTT_EVENT_CONNECTED: /* the subscription first: whoever sees `online` may shake hands */
        esp_mqtt_client_subscribe(node.client, node.down, 0);
        esp_mqtt_client_publish(node.client, node.state, "online", 6, 1, 1);
        if (caps.bytes)
            publish(&caps);
        node.online = true;
        break;
    case MQTT_EVENT_DISCONNECTED:
        node.online = false;
        break;
    case MQTT_EVENT_DATA:
        take_piece(data);
        break;
    default:
        break;
    }
}

/* Whole frames, all or nothing. Without a connection they are lost: the handshake after it begins anew. */
static size_t send_frame(void *ctx, const uint8_t *bytes, size_t count)
{
    topic_message message = topic_of_frame(bytes, count);
    bool news = true;
    (void)ctx;
    if (message.retained && message.bytes <= CAPS) {
        news = node.caps_bytes != message.bytes || memcmp(node.caps, message.payload, message.bytes) != 0;
        memcpy(node.caps, message.payload, message.bytes);
        node.caps_bytes = message.bytes;
    }
    if (node.online && news)
        publish(&message);
    return count;
}

static esp_err_t connect_client(const fedtiny_mqtt *mqtt)
{
    const char *device = ft_wire_device(&node.wire);
    if (topic_write(node.state, mqtt->fleet, device, "state") != 0 || topic_write(node.down, mqtt->fleet, device, "dn") != 0)
        return ESP_ERR_INVALID_ARG;
    const esp_mqtt_client_config_t config = {
        .broker.address.uri = mqtt->uri,
        .broker.verification.certificate = mqtt->authority,
        .credentials.username = device,
        .credentials.client_id = device,
        .credentials.authentication.password = mqtt->password,
        .session.last_will = {.topic = node.state, .msg = "lost", .msg_len = 4, .qos = 1, .retain = 1},
        .session.keepalive = KEEPALIVE_S,
        .network.reconnect_timeout_ms = RECONNECT_MS,
        .buffer.size = FT_WIRE_FRAME + TOPIC_BYTES,
    };
    node.client = esp_mqtt_client_init(&config);
    if (!node.client)
        return ESP_FAIL;
    esp_err_t error = esp_mqtt_client_register_event(node.client, MQTT_EVENT_ANY, on_event, NULL);
    return error == ESP_OK ? esp_mqtt_client_start(node.client) : error;
}

esp_err_t fedtiny_run_mqtt(const fedtiny_mqtt *mqtt, fedtiny_piece memory, const ft_data *own)
{
    static frame next;
    node.facts.frames = true;
    node.facts.window = QUEUE;
    node.fleet = mqtt->fleet;
    node.frames = xQueueCreate(QUEUE, sizeof(frame));
    if (!node.frames)
        return ESP_ERR_NO_MEM;
    esp_err_t error = chip_start(&node.wire, &node.service, &node.facts, send_frame, memory, own);
    if (error == ESP_OK && !ft_wire_enrolled(&node.wire))
        error = ESP_ERR_NOT_FOUND;
    if (error == ESP_OK)
        error = connect_client(mqtt);
    if (error != ESP_OK)
        return error;
    for (uint32_t wait_ms = 0;;) {
        if (xQueueReceive(node.frames, &next, chip_ticks(wait_ms)) == pdTRUE)
            ft_wire_feed(&node.wire, next.data, next.bytes);
        wait_ms = ft_wire_poll(&node.wire);
    }
}
