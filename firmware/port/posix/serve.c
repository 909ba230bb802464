#define _XOPEN_SOURCE 600
#include "serve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "fedtiny_wire.h"
#include "storage.h"

const char serve_usage[] =
    "fedtiny-node serve RECORD [--device ID] [--board NAME] [--memory BYTES] [--bank BYTES]... [--rate BYTES_PER_S] [--plain]\n"
    "                          [--stdio | --tcp PORT | --pty]\n";

enum { MEMORY_BYTES = 1 << 24, PIECE = 4096 };

typedef struct {
    int in, out;
    record_storage record;
} line;

static uint32_t now_ms(void *ctx)
{
    struct timespec now;
    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u);
}

static size_t put(void *ctx, const uint8_t *bytes, size_t count)
{
    line *l = ctx;
    ssize_t taken = write(l->out, bytes, count);
    return taken > 0 ? (size_t)taken : 0;
}

static void draw(void *ctx, uint8_t *bytes, size_t count)
{
    int file = open("/dev/urandom", O_RDONLY);
    (void)ctx;
    if (file < 0 || read(file, bytes, count) != (ssize_t)count) {
        fputs("fedtiny-node: /dev/urandom cannot be read\n", stderr);
        exit(2);
    }
    close(file);
}

static int load(void *ctx, uint8_t record[FT_WIRE_RECORD])
{
    line *l = ctx;
    return record_load(&l->record, record, FT_WIRE_RECORD) != FT_WIRE_RECORD;
}

static int store(void *ctx, const uint8_t record[FT_WIRE_RECORD])
{
    line *l = ctx;
    return record_save(&l->record, record, FT_WIRE_RECORD);
}

static int listen_at(uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int yes = 1, s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0 || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0
        || bind(s, (struct sockaddr *)&at, sizeof at) != 0 || listen(s, 1) != 0
        || getsockname(s, (struct sockaddr *)&at, &size) != 0)
        return -1;
    printf("127.0.0.1:%u\n", (unsigned)ntohs(at.sin_port));
    fflush(stdout);
    return s;
}

/* A terminal without a driver's help; prints the name of its other side. */
static int open_terminal(void)
{
    struct termios raw;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0)
        return -1;
    const char *name = ptsname(master);
    int slave = open(name, O_RDWR | O_NOCTTY); /* stays open: a host that leaves does not hang the line up */
    if (slave < 0 || tcgetattr(slave, &raw) != 0)
        return -1;
    raw.c_iflag = raw.c_oflag = raw.c_lflag = 0;
    raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    if (tcsetattr(slave, TCSANOW, &raw) != 0)
        return -1;
    printf("%s\n", name);
    fflush(stdout);
    return master;
}

static void make_patient(int file) { fcntl(file, F_SETFL, fcntl(file, F_GETFL) | O_NONBLOCK); }

/* Until the other side ends the line. */
static void talk(ft_wire *wire, line *l)
{
    uint8_t piece[PIECE];
    for (;;) {
        uint32_t wait_ms = ft_wire_poll(wire);
        struct pollfd files[2] = {{l->in, POLLIN, 0}, {l->out, ft_wire_sending(wire) ? POLLOUT : 0, 0}};
        if (poll(files, 2, wait_ms > 0x7FFFFFFF ? -1 : (int)wait_ms) < 0)
            return;
        if (files[0].revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t count = read(l->in, piece, sizeof piece);
            if (count == 0)
                return;
            if (count > 0)
                ft_wire_feed(wire, piece, (size_t)count);
        }
        if (files[1].revents & (POLLERR | POLLHUP | POLLNVAL))
            return;
    }
}

static int failed(const char *what)
{
    perror(what);
    return 2;
}

int serve(int argc, char **argv)
{
    static ft_wire wire;
    static ft_service service;
    static ft_saver saver;
    ft_wire_facts facts = {.device = "node", .board = "posix", .reset_reason = 1, .exchange = &ft_wire_x25519};
    line l = {0, 1, {0}};
    ft_wire_port port = {&l, now_ms, put, draw, load, store};
    uint32_t bytes = MEMORY_BYTES, bank_count = 0;
    ft_bank banks[FT_BANKS_MAX];
    long tcp = -1;
    bool terminal = false;
    if (argc < 2) {
        fputs(serve_usage, stderr);
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--plain"))
            facts.plain = true;
        else if (!strcmp(argv[i], "--pty"))
            terminal = true;
        else if (!strcmp(argv[i], "--device") && more)
            facts.device = argv[++i];
        else if (!strcmp(argv[i], "--board") && more)
            facts.board = argv[++i];
        else if (!strcmp(argv[i], "--memory") && more)
            bytes = (uint32_t)strtoul(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--bank") && more && bank_count < FT_BANKS_MAX - 1)
            banks[bank_count++].bytes = (uint32_t)strtoul(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--rate") && more)
            facts.bytes_per_s = (uint32_t)strtoul(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--tcp") && more)
            tcp = strtol(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--stdio") != 0) {
            fprintf(stderr, "fedtiny-node: %s?\n%s", argv[i], serve_usage);
            return 2;
        }
    }
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory)
        return failed("memory for samples, model and arena");
    for (uint32_t i = 0; i < bank_count; i++)
        if (!(banks[i].at = malloc(banks[i].bytes ? banks[i].bytes : 1)))
            return failed("memory for a bank");
    l.record = posix_storage(argv[1]);
    const ft_storage areas = posix_areas(argv[1]);
    ft_service_start(&service, memory, bytes, NULL);
    if (bank_count)
        ft_service_banks(&service, banks, bank_count);
    ft_status status = ft_wire_start(&wire, &port, &facts, ft_service_tasks(&service));
    if (status != FT_OK) {
        fprintf(stderr, "fedtiny-node: %s\n",
                status == FT_ERR_DATA ? "the record cannot be written: give a path in a folder that you may write to"
                                      : "--device takes 1 to 31 bytes, --board up to 31");
        free(memory);
        return 2;
    }
    ft_saver_start(&saver, &service, &wire, &areas);
    const struct sigaction ignored = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignored, NULL); /* a host that is gone ends a connection, not the node */
    int listener = tcp >= 0 ? listen_at((uint16_t)tcp) : -1;
    if (tcp >= 0 && listener < 0)
        return failed("listening");
    if (terminal && (l.in = l.out = open_terminal()) < 0)
        return failed("opening a terminal");
    do {
        int yes = 1;
        if (listener >= 0) {
            l.in = l.out = accept(listener, NULL, NULL);
            if (l.in < 0 && (errno == EINTR || errno == ECONNABORTED))
                continue;
            if (l.in < 0)
                return failed("accepting a connection");
            setsockopt(l.in, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        }
        make_patient(l.in);
        make_patient(l.out);
        talk(&wire, &l);
        if (listener >= 0)
            close(l.in);
    } while (listener >= 0);
    free(memory);
    return 0;
}
