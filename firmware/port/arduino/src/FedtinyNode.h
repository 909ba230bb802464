/* A fedtiny node on an Arduino Stream: begin() once, poll() from loop(). README.md beside this has the steps. */
#ifndef FEDTINY_NODE_H
#define FEDTINY_NODE_H

#include <Arduino.h>

#include "fedtiny_wire.h"

/* FEDTINY_STORAGE_BYTES that outlive a loss of power: the node's key, name and count of starts, in two copies written in turn.
 * They are written once at each start and when the node is enrolled. Storage of your own (a file, an FRAM) is a class like this. */
enum { FEDTINY_STORAGE_BYTES = 256 };
class FedtinyStorage {
public:
    virtual bool read(uint32_t at, uint8_t *to, uint32_t bytes) = 0;
    virtual bool write(uint32_t at, const uint8_t *from, uint32_t bytes) = 0; /* true: they stay, whatever happens now */

protected:
    ~FedtinyStorage() {}
};

class FedtinyNode {
public:
    /* memory: 8-byte aligned, for samples, model and arena together; it and the texts outlive the node. device: its name until
     * it is enrolled under another. own: an application's samples, or NULL: the host brings them.
     * false: storage cannot be written (without a new count of starts no session would be safe), or a text is too long. */
    bool begin(Stream &stream, FedtinyStorage &storage, void *memory, uint32_t bytes, const char *device = "new",
               const char *board = "arduino", const ft_data *own = NULL);

    /* Between begin() and poll(): memory that is faster than begin's, for the parts of the arena that fit there; it and the list
     * outlive the node. false: there is no place for so many. */
    bool banks(const ft_bank *banks, uint32_t count);

    /* Takes what came, sends what is due, works on a task: for as long as that takes, seconds and more. Call it again at once,
     * or after so many milliseconds at most, or when bytes have come. Does nothing before begin() has returned true. */
    uint32_t poll();

    void log(const char *text); /* a line for the host's log; the text stays until it is sent */
    bool enrolled() const;
    const char *device() const;
    ft_node *node(); /* to infer between polls, not while holds(); NULL: there is no model yet */
    bool holds() const; /* what the host sends or fetches lies where the core computes (ft_wire_holds) */

private:
    static uint32_t now_ms(void *ctx);
    static size_t write(void *ctx, const uint8_t *bytes, size_t count);
    static int load(void *ctx, uint8_t record[FT_WIRE_RECORD]);
    static int store(void *ctx, const uint8_t record[FT_WIRE_RECORD]);

    bool running_ = false;
    Stream *stream_ = NULL;
    FedtinyStorage *storage_ = NULL;
    ft_wire wire_{};
    ft_service service_{};
    ft_wire_port port_{};
    ft_wire_facts facts_{};
};

#endif
