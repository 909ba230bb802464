/* Many nodes in one process, each with its own connection to an MQTT broker: the firmware's wire over a small MQTT 3.1.1 client.
 *
 *     swarm PORT FLEET NODES OBJECT_BYTES KEY
 *
 * The nodes are b0000, b0001, ...; KEY is the key of all of them, 64 hexadecimal digits. A task's object, of at most
 * OBJECT_BYTES, comes back as the object of its reply. "ready" on standard output: all have subscribed. Ends with standard
 * input. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fedtiny_wire.h"

enum {
    CONNECT = 0x10,
    CONNACK = 2,
    PUBLISH = 3,
    PUBLISH_QOS0 = 0x30,
    PUBLISH_RETAINED = 0x31,
    PUBLISH_QOS1 = 0x32,
    SUBSCRIBE = 0x82,
    SUBACK = 9,
    REPLY = 17,
    TOPIC = 96,
    PACKET = 5 + TOPIC + 4 + FT_WIRE_FRAME,
    KEEPALIVE_S = 600,
    LOOK_MS = 5, /* how often the clocks of all nodes are looked at */
    EVENTS = 256
};

typedef struct {
    ft_wire wire;
    ft_wire_port port;
    ft_wire_facts facts;
    char id[8];
    const char *fleet;
    const uint8_t *key;
    int epoll, fd;
    bool ready, waits; /* subscribed; the socket is full */
    uint16_t packet;
    uint32_t due_ms;
    uint8_t *object;
    uint32_t object_bytes;
    size_t in_count, out_count;
    uint8_t in[4 * PACKET], out[4 * PACKET];
} node;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint32_t now_ms(void *ctx)
{
    struct timespec t;
    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint32_t)t.tv_sec * 1000u + (uint32_t)(t.tv_nsec / 1000000);
}

/* -- MQTT */

static void flush(node *n)
{
    while (n->out_count) {
        ssize_t sent = send(n->fd, n->out, n->out_count, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            die("send");
        if (sent < 0)
            break;
        n->out_count -= (size_t)sent;
        memmove(n->out, n->out + sent, n->out_count);
    }
    if (n->waits != (n->out_count > 0)) {
        struct epoll_event event = {EPOLLIN | (n->out_count ? EPOLLOUT : 0u), {.ptr = n}};
        n->waits = n->out_count > 0;
        epoll_ctl(n->epoll, EPOLL_CTL_MOD, n->fd, &event);
    }
}

static uint8_t *put_text(uint8_t *at, const char *text)
{
    size_t count = strlen(text);
    *at++ = (uint8_t)(count >> 8);
    *at++ = (uint8_t)count;
    memcpy(at, text, count);
    return at + count;
}

/* One packet: head, length of head_count + count bytes, both. */
static bool put_packet(node *n, uint8_t type, const uint8_t *head, size_t head_count, const uint8_t *bytes, size_t count)
{
    size_t length = head_count + count;
    if (n->out_count + 5 + length > sizeof n->out)
        return false;
    uint8_t *at = n->out + n->out_count;
    *at++ = type;
    for (; length > 127; length >>= 7)
        *at++ = (uint8_t)(length | 128);
    *at++ = (uint8_t)length;
    memcpy(at, head, head_count);
    if (count)
        memcpy(at + head_count, bytes, count);
    n->out_count = (size_t)(at + head_count + count - n->out);
    flush(n);
    return true;
}

static bool publish(node *n, uint8_t type, const char *what, const uint8_t *bytes, size_t count)
{
    char topic[TOPIC];
    uint8_t head[TOPIC + 4], *at;
    snprintf(topic, sizeof topic, "fl/v1/%s/%s/%s", n->fleet, n->id, what);
    at = put_text(head, topic);
    if (type == PUBLISH_QOS1) {
        n->packet = (uint16_t)(n->packet % 65535 + 1);
        *at++ = (uint8_t)(n->packet >> 8);
        *at++ = (uint8_t)n->packet;
    }
    return put_packet(n, type, head, (size_t)(at - head), bytes, count);
}

static void subscribe(node *n)
{
    char topic[TOPIC];
    uint8_t head[TOPIC + 8] = {0, 1}, *at;
    snprintf(topic, sizeof topic, "fl/v1/%s/%s/dn", n->fleet, n->id);
    at = put_text(head + 2, topic);
    *at++ = 0;
    put_packet(n, SUBSCRIBE, head, (size_t)(at - head), NULL, 0);
}

static void poll_node(node *n)
{
    uint32_t wait = ft_wire_poll(&n->wire);
    n->due_ms = now_ms(NULL) + wait;
}

static void on_packet(node *n, uint8_t type, const uint8_t *bytes, size_t count)
{
    switch (type >> 4) {
    case CONNACK:
        if (count < 2 || bytes[1])
            die("the broker refuses a node");
        subscribe(n);
        break;
    case SUBACK:
        n->ready = true;
        publish(n, PUBLISH_RETAINED, "state", (const uint8_t *)"online", 6);
        break;
    case PUBLISH: {
        size_t topic = 2 + ((size_t)bytes[0] << 8 | bytes[1]);
        ft_wire_feed(&n->wire, bytes + topic, count - topic);
        poll_node(n);
        break;
    }
    default: /* PUBACK */
        break;
    }
}

/* Takes one whole packet from the front of what came; 0 = there is none yet. */
static size_t take_packet(node *n, const uint8_t *at, size_t count)
{
    size_t length = 0, header = 1;
    for (uint32_t shift = 0;; shift += 7) {
        if (header >= count)
            return 0;
        length |= (size_t)(at[header] & 127) << shift;
        if (at[header++] < 128)
            break;
    }
    if (header + length > sizeof n->in)
        die("a packet larger than any frame");
    if (header + length > count)
        return 0;
    on_packet(n, at[0], at + header, length);
    return header + length;
}

static void receive(node *n)
{
    ssize_t got = recv(n->fd, n->in + n->in_count, sizeof n->in - n->in_count, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN))
        die("the broker hung up");
    if (got < 0)
        return;
    n->in_count += (size_t)got;
    size_t at = 0, taken;
    while (at < n->in_count && (taken = take_packet(n, n->in + at, n->in_count - at)) > 0)
        at += taken;
    n->in_count -= at;
    memmove(n->in, n->in + at, n->in_count);
}

/* -- the node's port, and its one task */

static size_t write_frame(void *ctx, const uint8_t *bytes, size_t count)
{
    node *n = ctx;
    if (n->waits)
        return 0;
    bool sure = bytes[1] == REPLY;
    return publish(n, sure ? PUBLISH_QOS1 : PUBLISH_QOS0, sure ? "done" : "up", bytes, count) ? count : 0;
}

static int load_record(void *ctx, uint8_t record[FT_WIRE_RECORD])
{
    const node *n = ctx;
    memset(record, 0, FT_WIRE_RECORD);
    record[0] = record[1] = 1; /* version 1, with a key */
    record[2] = (uint8_t)strlen(n->id);
    memcpy(record + 8, n->key, FT_WIRE_KEY);
    memcpy(record + 8 + FT_WIRE_KEY, n->id, strlen(n->id));
    return 0;
}

static int store_record(void *ctx, const uint8_t record[FT_WIRE_RECORD])
{
    (void)ctx;
    (void)record;
    return 0; /* a node boots once here */
}

static uint8_t *place(void *ctx, const ft_wire_task *task, uint32_t i, bool *have, ft_wire_reply *reply)
{
    node *n = ctx;
    (void)reply;
    *have = false;
    return i == 0 && task->objects[0].ref.length <= n->object_bytes ? n->object : NULL;
}

static void work(void *ctx, const ft_wire_task *task, const ft_wire_counts *counts, uint32_t boots, ft_wire_reply *reply)
{
    const node *n = ctx;
    (void)counts;
    (void)boots;
    if (task->object_count == 0)
        return;
    reply->object_count = 1;
    reply->objects[0].ref.kind = task->objects[0].ref.kind;
    reply->objects[0].form = FT_WIRE_BYTES;
    reply->objects[0].at = n->object;
    reply->objects[0].count = task->objects[0].ref.length;
}

static void room(void *ctx, uint32_t *arena_bytes, uint32_t *free_bytes)
{
    const node *n = ctx;
    *arena_bytes = *free_bytes = n->object_bytes;
}

static void start(node *n, uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct epoll_event event = {EPOLLIN, {.ptr = n}};
    const int one = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    n->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (n->fd < 0 || connect(n->fd, (struct sockaddr *)&to, sizeof to))
        die("connect");
    setsockopt(n->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(n->fd, F_SETFL, O_NONBLOCK);
    epoll_ctl(n->epoll, EPOLL_CTL_ADD, n->fd, &event);

    n->port = (ft_wire_port){n, now_ms, write_frame, NULL, load_record, store_record};
    ft_wire_tasks tasks = {n, place, work, room};
    n->facts.device = n->id;
    n->facts.board = "swarm";
    n->facts.frames = true;
    if (ft_wire_start(&n->wire, &n->port, &n->facts, tasks))
        die("ft_wire_start");
    n->due_ms = now_ms(NULL);

    uint8_t hello[64] = {0, 4, 'M', 'Q', 'T', 'T', 4, 2, KEEPALIVE_S >> 8, KEEPALIVE_S & 255};
    put_packet(n, CONNECT, hello, (size_t)(put_text(hello + 10, n->id) - hello), NULL, 0);
}

int main(int argc, char **argv)
{
    static uint8_t key[FT_WIRE_KEY];
    if (argc != 6 || strlen(argv[5]) != 2 * sizeof key)
        return fprintf(stderr, "swarm PORT FLEET NODES OBJECT_BYTES KEY\n"), 2;
    for (size_t i = 0; i < sizeof key; i++) {
        char digits[3] = {argv[5][2 * i], argv[5][2 * i + 1], 0};
        key[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    uint32_t count = (uint32_t)atoi(argv[3]), object_bytes = (uint32_t)atoi(argv[4]), ready = 0;
    node *nodes = calloc(count, sizeof *nodes);
    uint8_t *objects = malloc((size_t)count * object_bytes);
    int epoll = epoll_create1(0);
    struct epoll_event input = {EPOLLIN, {.ptr = NULL}}, events[EVENTS];
    if (!nodes || !objects || epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input))
        die("swarm");
    for (uint32_t i = 0; i < count; i++) {
        node *n = &nodes[i];
        snprintf(n->id, sizeof n->id, "b%04u", (unsigned)(i % 10000));
        n->fleet = argv[2];
        n->key = key;
        n->epoll = epoll;
        n->object = objects + (size_t)i * object_bytes;
        n->object_bytes = object_bytes;
        start(n, (uint16_t)atoi(argv[1]));
    }
    for (uint32_t looked = now_ms(NULL);;) {
        int found = epoll_wait(epoll, events, EVENTS, LOOK_MS);
        for (int i = 0; i < found; i++) {
            node *n = events[i].data.ptr;
            if (!n)
                return 0;
            bool was = n->ready;
            if (events[i].events & EPOLLIN)
                receive(n);
            if (events[i].events & EPOLLOUT) {
                flush(n);
                poll_node(n);
            }
            if (n->ready && !was && ++ready == count) {
                puts("ready");
                fflush(stdout);
            }
        }
        uint32_t now = now_ms(NULL);
        if (now - looked >= LOOK_MS) {
            looked = now;
            for (uint32_t i = 0; i < count; i++)
                if (nodes[i].ready && (int32_t)(now - nodes[i].due_ms) >= 0)
                    poll_node(&nodes[i]);
        }
    }
}
