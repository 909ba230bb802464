/* esp-mqtt on a host, through libmosquitto: its calls, its events, and messages in pieces of no more than PIECE bytes. */
#define _POSIX_C_SOURCE 200809L
#include <mosquitto.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mqtt_client.h"

enum { PIECE = 300, LOOP_MS = 100 };

struct client {
    struct mosquitto *mosquitto;
    esp_event_handler_t handler;
    void *ctx;
    char host[256];
    int port, keepalive, retry_ms;
};

static void tell(struct client *client, esp_mqtt_event_t event)
{
    event.client = client;
    client->handler(client->ctx, "MQTT_EVENTS", event.event_id, &event);
}

static void on_connect(struct mosquitto *mosquitto, void *ctx, int refused)
{
    (void)mosquitto;
    if (!refused)
        tell(ctx, (esp_mqtt_event_t){.event_id = MQTT_EVENT_CONNECTED});
}

static void on_disconnect(struct mosquitto *mosquitto, void *ctx, int reason)
{
    (void)mosquitto;
    (void)reason;
    tell(ctx, (esp_mqtt_event_t){.event_id = MQTT_EVENT_DISCONNECTED});
}

static void on_message(struct mosquitto *mosquitto, void *ctx, const struct mosquitto_message *message)
{
    (void)mosquitto;
    for (int at = 0; at < message->payloadlen; at += PIECE) {
        int left = message->payloadlen - at;
        tell(ctx, (esp_mqtt_event_t){.event_id = MQTT_EVENT_DATA,
                                     .data = (char *)message->payload + at,
                                     .data_len = left < PIECE ? left : PIECE,
                                     .total_data_len = message->payloadlen,
                                     .current_data_offset = at,
                                     .topic = at ? NULL : message->topic,
                                     .topic_len = at ? 0 : (int)strlen(message->topic)});
    }
}

static char *write_authority(const char *pem)
{
    static char path[] = "/tmp/authority-XXXXXX";
    int file = mkstemp(path);
    return file >= 0 && write(file, pem, strlen(pem)) == (ssize_t)strlen(pem) && close(file) == 0 ? path : NULL;
}

esp_mqtt_client_handle_t esp_mqtt_client_init(const esp_mqtt_client_config_t *config)
{
    struct client *client = calloc(1, sizeof *client);
    mosquitto_lib_init();
    signal(SIGPIPE, SIG_IGN);
    if (!client || sscanf(config->broker.address.uri, "mqtts://%255[^:]:%d", client->host, &client->port) != 2)
        return NULL;
    client->keepalive = config->session.keepalive;
    client->retry_ms = config->network.reconnect_timeout_ms;
    client->mosquitto = mosquitto_new(config->credentials.client_id, true, client);
    mosquitto_threaded_set(client->mosquitto, true);
    char *authority = write_authority(config->broker.verification.certificate);
    int error = mosquitto_username_pw_set(client->mosquitto, config->credentials.username,
                                          config->credentials.authentication.password);
    error |= mosquitto_will_set(client->mosquitto, config->session.last_will.topic, config->session.last_will.msg_len,
                                config->session.last_will.msg, config->session.last_will.qos, config->session.last_will.retain);
    error |= authority ? mosquitto_tls_set(client->mosquitto, authority, NULL, NULL, NULL, NULL) : 1;
    mosquitto_connect_callback_set(client->mosquitto, on_connect);
    mosquitto_disconnect_callback_set(client->mosquitto, on_disconnect);
    mosquitto_message_callback_set(client->mosquitto, on_message);
    return error ? NULL : client;
}

esp_err_t esp_mqtt_client_register_event(esp_mqtt_client_handle_t client, esp_mqtt_event_id_t event,
                                         esp_event_handler_t handler, void *ctx)
{
    client->handler = handler;
    client->ctx = ctx;
    return event == MQTT_EVENT_ANY ? ESP_OK : ESP_ERR_INVALID_ARG;
}

static void *serve(void *ctx)
{
    struct client *client = ctx;
    for (int connected = 0;;) {
        connected = (connected ? mosquitto_loop(client->mosquitto, LOOP_MS, 1)
                               : mosquitto_connect(client->mosquitto, client->host, client->port, client->keepalive))
                    == MOSQ_ERR_SUCCESS;
        if (!connected)
            nanosleep(&(struct timespec){client->retry_ms / 1000, client->retry_ms % 1000 * 1000000L}, NULL);
    }
    return NULL;
}

esp_err_t esp_mqtt_client_start(esp_mqtt_client_handle_t client)
{
    pthread_t thread;
    return pthread_create(&thread, NULL, serve, client) == 0 ? ESP_OK : ESP_FAIL;
}

int esp_mqtt_client_subscribe(esp_mqtt_client_handle_t client, const char *topic, int qos)
{
    int message;
    return mosquitto_subscribe(client->mosquitto, &message, topic, qos) == MOSQ_ERR_SUCCESS ? message : -1;
}

int esp_mqtt_client_publish(esp_mqtt_client_handle_t client, const char *topic, const char *data, int bytes, int qos, int retain)
{
    int message;
    return mosquitto_publish(client->mosquitto, &message, topic, bytes ? bytes : (int)strlen(data), data, qos, retain)
                   == MOSQ_ERR_SUCCESS
               ? message
               : -1;
}
