#pragma once
#include <stdbool.h>

#include "esp_err.h"

typedef const char *esp_event_base_t;
typedef void (*esp_event_handler_t)(void *ctx, esp_event_base_t base, int32_t id, void *data);
typedef struct client *esp_mqtt_client_handle_t;
typedef enum { MQTT_EVENT_ANY = -1, MQTT_EVENT_CONNECTED = 1, MQTT_EVENT_DISCONNECTED, MQTT_EVENT_SUBSCRIBED,
               MQTT_EVENT_UNSUBSCRIBED, MQTT_EVENT_PUBLISHED, MQTT_EVENT_DATA } esp_mqtt_event_id_t;
typedef struct {
    esp_mqtt_event_id_t event_id;
    esp_mqtt_client_handle_t client;
    char *data;
    int data_len, total_data_len, current_data_offset;
    char *topic;
    int topic_len;
} esp_mqtt_event_t;
typedef struct {
    struct {
        struct {
            const char *uri;
        } address;
        struct {
            const char *certificate;
        } verification;
    } broker;
    struct {
        const char *username, *client_id;
        struct {
            const char *password;
        } authentication;
    } credentials;
    struct {
        struct {
            const char *topic, *msg;
            int msg_len, qos, retain;
        } last_will;
        int keepalive;
    } session;
    struct {
        int reconnect_timeout_ms;
    } network;
    struct {
        int size;
    } buffer;
} esp_mqtt_client_config_t;

esp_mqtt_client_handle_t esp_mqtt_client_init(const esp_mqtt_client_config_t *config);
esp_err_t esp_mqtt_client_register_event(esp_mqtt_client_handle_t client, esp_mqtt_event_id_t event,
                                         esp_event_handler_t handler, void *ctx);
esp_err_t esp_mqtt_client_start(esp_mqtt_client_handle_t client);
int esp_mqtt_client_subscribe(esp_mqtt_client_handle_t client, const char *topic, int qos);
int esp_mqtt_client_publish(esp_mqtt_client_handle_t client, const char *topic, const char *data, int bytes, int qos, int retain);
