/* fedtiny-node-mqtt: a node behind an MQTT broker, through libmosquitto.
 *
 *   fedtiny-node-mqtt --record FILE --host NAME [--port 8883] [--fleet fleet] [--ca FILE] [--password FILE]
 *                     [--memory BYTES] [--no-tls]
 *
 * The record (made by `fedtiny fleet enrol --offline`) holds the device's id, which is also its login's user name, and its key.
 * The password is the first line of its file. One thread keeps the connection, with pings while the other one trains. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <getopt.h>
#include <mosquitto.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../mqtt/topics.h"
#include "fedtiny_wire.h"
#include "storage.h"

enum { KEEPALIVE_S = 20, FIRST_BACK_OFF_MS = 250, LONGEST_BACK_OFF_MS = 4000, LOOP_MS = 1000, GOODBYE_MS = 2000 };
enum { QUEUE = 128, CAPS = 128, MEMORY = 16 << 20, PASSWORD = 256, FULL_MS = 2 };

typedef struct {
    uint16_t bytes;
    uint8_t data[FT_WIRE_FRAME];
} frame;

typedef struct {
    const char *record, *host, *fleet, *ca, *password;
    int port;
    uint32_t memory;
    bool tls;
} options;

/* What both threads touch stands under the lock. */
typedef struct {
    struct mosquitto *client;
    char state[TOPIC_BYTES], down[TOPIC_BYTES];
    options options;
    ft_wire wire;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    frame queue[QUEUE]; /* frames to the node; one that finds it full is lost, and asked for again */
    uint32_t put, taken;
    bool online, drained;
    uint8_t caps[CAPS];
    size_t caps_bytes;
} link_state;

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "fedtiny-node-mqtt: %s: %s\n", what, why);
    return 2;
}

static uint32_t now_ms(void *ctx)
{
    struct timespec now;
    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)(now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

static void sleep_ms(uint32_t ms)
{
    struct timespec wait = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&wait, NULL);
}

static void fill_random(void *ctx, uint8_t *bytes, size_t count)
{
    FILE *file = fopen("/dev/urandom", "rb");
    (void)ctx;
    if (!file || fread(bytes, 1, count, file) != count)
        abort(); /* no key may come of anything else */
    fclose(file);
}

/* -- The connection's thread */

static void publish(link_state *link, const char *what, int qos, bool retained, const void *payload, size_t bytes)
{
    char topic[TOPIC_BYTES];
    if (topic_write(topic, link->options.fleet, ft_wire_device(&link->wire), what) == 0)
        mosquitto_publish(link->client, NULL, topic, (int)bytes, payload, qos, retained);
}

/* The subscription comes first: whoever sees `online` may shake hands. */
static void on_connect(struct mosquitto *client, void *ctx, int refused)
{
    link_state *link = ctx;
    if (refused) {
        fail("the broker refuses the login", mosquitto_connack_string(refused));
        return;
    }
    pthread_mutex_lock(&link->lock);
    mosquitto_subscribe(client, NULL, link->down, 0);
    mosquitto_publish(client, NULL, link->state, 6, "online", 1, true);
    if (link->caps_bytes)
        publish(link, "caps", 1, true, link->caps, link->caps_bytes);
    link->online = true;
    pthread_mutex_unlock(&link->lock);
}

static void on_disconnect(struct mosquitto *client, void *ctx, int reason)
{
    link_state *link = ctx;
    (void)client;
    (void)reason;
    pthread_mutex_lock(&link->lock);
    link->online = false;
    pthread_mutex_unlock(&link->lock);
}

static void on_message(struct mosquitto *client, void *ctx, const struct mosquitto_message *message)
{
    link_state *link = ctx;
    (void)client;
    if (message->payloadlen <= 0 || message->payloadlen > FT_WIRE_FRAME)
        return;
    pthread_mutex_lock(&link->lock);
    if (link->put - link->taken < QUEUE) {
        frame *to = &link->queue[link->put++ % QUEUE];
        to->bytes = (uint16_t)message->payloadlen;
        memcpy(to->data, message->payload, to->bytes);
        pthread_cond_signal(&link->changed);
    }
    pthread_mutex_unlock(&link->lock);
}

static void on_publish(struct mosquitto *client, void *ctx, int message)
{
    link_state *link = ctx;
    (void)client;
    (void)message;
    pthread_mutex_lock(&link->lock);
    link->drained = true;
    pthread_cond_signal(&link->changed);
    pthread_mutex_unlock(&link->lock);
}

/* Connects, and again with back-off whenever the connection is lost, whatever the reason: a broker that restarts may well answer
 * half a TLS handshake. */
static void *keep_connected(void *ctx)
{
    link_state *link = ctx;
    uint32_t wait_ms = FIRST_BACK_OFF_MS;
    bool told = false;
    for (bool connected = false; !stopped;) {
        int error = connected ? mosquitto_loop(link->client, LOOP_MS, 1)
                              : mosquitto_connect(link->client, link->options.host, link->options.port, KEEPALIVE_S);
        connected = error == MOSQ_ERR_SUCCESS;
        if (connected) {
            pthread_mutex_lock(&link->lock);
            if (link->online) {
                wait_ms = FIRST_BACK_OFF_MS;
                told = false;
            }
            pthread_mutex_unlock(&link->lock);
            continue;
        }
        if (!told)
            fail("no connection to the broker, trying again", error == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(error));
        told = true;
        on_disconnect(link->client, link, error);
        sleep_ms(wait_ms);
        wait_ms = wait_ms * 2 < LONGEST_BACK_OFF_MS ? wait_ms * 2 : LONGEST_BACK_OFF_MS;
    }
    return NULL;
}

/* -- The node's thread */

/* Whole frames, all or nothing. Without a connection they are lost: the handshake after it begins anew. */
static size_t send_frame(void *ctx, const uint8_t *bytes, size_t count)
{
    link_state *link = ctx;
    topic_message message = topic_of_frame(bytes, count);
    pthread_mutex_lock(&link->lock);
    bool online = link->online, news = true;
    if (message.retained && message.bytes <= CAPS) {
        news = link->caps_bytes != message.bytes || memcmp(link->caps, message.payload, message.bytes) != 0;
        memcpy(link->caps, message.payload, message.bytes);
        link->caps_bytes = message.bytes;
    }
    link->drained = false;
    pthread_mutex_unlock(&link->lock);
    if (online && mosquitto_want_write(link->client))
        return 0;
    if (online && news)
        publish(link, message.what, message.qos, message.retained, message.payload, message.bytes);
    return count;
}

static uint16_t next_frame(link_state *link, uint8_t *to)
{
    uint16_t bytes = 0;
    pthread_mutex_lock(&link->lock);
    if (link->taken != link->put) {
        frame *from = &link->queue[link->taken++ % QUEUE];
        bytes = from->bytes;
        memcpy(to, from->data, bytes);
    }
    pthread_mutex_unlock(&link->lock);
    return bytes;
}

static void wait_for_news(link_state *link, uint32_t ms, bool sending)
{
    struct timespec until;
    ms = ms > LOOP_MS ? LOOP_MS : ms; /* a signal to stop is heard in time */
    ms = sending && ms > FULL_MS ? FULL_MS : ms;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&link->lock);
    if (link->taken == link->put && !(sending && link->drained))
        pthread_cond_timedwait(&link->changed, &link->lock, &until);
    pthread_mutex_unlock(&link->lock);
}

static void work(link_state *link)
{
    uint8_t bytes[FT_WIRE_FRAME];
    while (!stopped) {
        uint16_t count = next_frame(link, bytes);
        if (count)
            ft_wire_feed(&link->wire, bytes, count);
        uint32_t ms = ft_wire_poll(&link->wire);
        if (!count)
            wait_for_news(link, ms, ft_wire_sending(&link->wire));
    }
}

static int load(void *ctx, uint8_t record[FT_WIRE_RECORD])
{
    record_storage storage = posix_storage(((link_state *)ctx)->options.record);
    return record_load(&storage, record, FT_WIRE_RECORD) != FT_WIRE_RECORD;
}

static int store(void *ctx, const uint8_t record[FT_WIRE_RECORD])
{
    record_storage storage = posix_storage(((link_state *)ctx)->options.record);
    return record_save(&storage, record, FT_WIRE_RECORD);
}

/* -- Setting up */

static int read_options(int argc, char **argv, options *to)
{
    static const struct option known[] = {{"record", 1, 0, 'r'}, {"host", 1, 0, 'h'},     {"port", 1, 0, 'p'},
                                          {"fleet", 1, 0, 'f'},  {"ca", 1, 0, 'c'},       {"password", 1, 0, 'w'},
                                          {"memory", 1, 0, 'm'}, {"no-tls", 0, 0, 't'}, {0, 0, 0, 0}};
    *to = (options){.fleet = "fleet", .port = 8883, .memory = MEMORY, .tls = true};
    for (int key; (key = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (key) {
        case 'r': to->record = optarg; break;
        case 'h': to->host = optarg; break;
        case 'p': to->port = atoi(optarg); break;
        case 'f': to->fleet = optarg; break;
        case 'c': to->ca = optarg; break;
        case 'w': to->password = optarg; break;
        case 'm': to->memory = (uint32_t)strtoul(optarg, NULL, 10) & ~7u; break;
        case 't': to->tls = false; break;
        default: return 1;
        }
    return !to->record || !to->host || to->port < 1 || to->port > 65535 || !to->memory || optind != argc;
}

static int read_password(const char *path, char password[PASSWORD])
{
    FILE *file = fopen(path, "r");
    if (!file)
        return 1;
    int failed = !fgets(password, PASSWORD, file);
    password[strcspn(password, "\r\n")] = 0;
    fclose(file);
    return failed;
}

/* What stands in the login, the will and TLS. NULL, or what went wrong. */
static const char *set_up(link_state *link, const options *options)
{
    char id[TOPIC_BYTES], password[PASSWORD];
    const char *device = ft_wire_device(&link->wire);
    int error;
    if (topic_write(link->state, options->fleet, device, "state") != 0 || topic_write(link->down, options->fleet, device, "dn") != 0
        || snprintf(id, sizeof id, "%s/%s", options->fleet, device) >= (int)sizeof id)
        return "the fleet's or the device's name is no part of a topic";
    if (options->password && read_password(options->password, password) != 0)
        return "the password's file cannot be read";
    link->client = mosquitto_new(id, true, link);
    if (!link->client)
        return "out of memory";
    mosquitto_threaded_set(link->client, true);
    mosquitto_connect_callback_set(link->client, on_connect);
    mosquitto_disconnect_callback_set(link->client, on_disconnect);
    mosquitto_message_callback_set(link->client, on_message);
    mosquitto_publish_callback_set(link->client, on_publish);
    error = mosquitto_username_pw_set(link->client, device, options->password ? password : NULL);
    if (!error)
        error = mosquitto_will_set(link->client, link->state, 4, "lost", 1, true);
    if (!error && options->tls && !options->ca)
        error = mosquitto_int_option(link->client, MOSQ_OPT_TLS_USE_OS_CERTS, 1);
    if (!error && options->tls && options->ca)
        error = mosquitto_tls_set(link->client, options->ca, NULL, NULL, NULL, NULL);
    return error ? mosquitto_strerror(error) : NULL;
}

/* The connection's thread has ended: from here each call writes by itself. */
static void say_goodbye(link_state *link)
{
    mosquitto_threaded_set(link->client, false);
    mosquitto_publish(link->client, NULL, link->state, 7, "offline", 1, true);
    for (uint32_t start = now_ms(NULL); now_ms(NULL) - start < GOODBYE_MS && mosquitto_want_write(link->client);)
        mosquitto_loop(link->client, FULL_MS, 1);
    mosquitto_disconnect(link->client);
}

int main(int argc, char **argv)
{
    static link_state link = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    static ft_service service;
    static ft_saver saver;
    static const ft_wire_facts facts = {.device = "new", .board = "posix", .frames = true, .exchange = &ft_wire_x25519};
    ft_wire_port port = {&link, now_ms, send_frame, fill_random, load, store};
    struct sigaction action = {.sa_handler = stop}, ignored = {.sa_handler = SIG_IGN};
    uint8_t record[FT_WIRE_RECORD];
    pthread_t connection;

    if (read_options(argc, argv, &link.options) != 0)
        return fail("usage", "--record FILE --host NAME [--port 8883] [--fleet fleet] [--ca FILE] [--password FILE] "
                             "[--memory BYTES] [--no-tls]");
    if (load(&link, record) != 0)
        return fail(link.options.record, "is no record. Make one with: fedtiny fleet enrol --offline");
    void *memory = malloc(link.options.memory);
    if (!memory)
        return fail("--memory", "there is not so much");
    mosquitto_lib_init();
    const ft_storage areas = posix_areas(link.options.record);
    ft_service_start(&service, memory, link.options.memory, NULL);
    if (ft_wire_start(&link.wire, &port, &facts, ft_service_tasks(&service)) != FT_OK)
        return fail(link.options.record, "cannot be written, and without a new boot counter no session would be safe");
    ft_saver_start(&saver, &service, &link.wire, &areas);
    if (!ft_wire_enrolled(&link.wire))
        return fail(link.options.record, "holds no key. Make one with: fedtiny fleet enrol --offline");
    const char *problem = set_up(&link, &link.options);
    if (problem)
        return fail("setting up", problem);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGPIPE, &ignored, NULL); /* a broker that is gone is an error of the connection, not of the program */
    if (pthread_create(&connection, NULL, keep_connected, &link) != 0)
        return fail("setting up", "no thread");
    work(&link);
    pthread_join(connection, NULL);
    if (link.online)
        say_goodbye(&link);
    mosquitto_destroy(link.client);
    mosquitto_lib_cleanup();
    free(memory);
    return 0;
}
