#include "FedtinyNode.h"

extern "C" {
#include "record.h"
}

namespace {

enum { TURN = 128 /* bytes fed between two polls */, BLIND = 32 /* bytes at once for a Stream that does not say what it takes */ };

int read_slot(void *ctx, uint32_t half, uint32_t, uint8_t *to)
{
    return !static_cast<FedtinyStorage *>(ctx)->read(half * RECORD_SLOT, to, RECORD_SLOT);
}

int write_slot(void *ctx, uint32_t half, uint32_t, const uint8_t *from)
{
    return !static_cast<FedtinyStorage *>(ctx)->write(half * RECORD_SLOT, from, RECORD_SLOT);
}

int erase(void *, uint32_t) { return 0; } /* writing replaces what was there */

record_storage halves(FedtinyStorage *storage)
{
    static_assert(FEDTINY_STORAGE_BYTES == 2 * RECORD_SLOT, "two halves of one slot");
    return record_storage{storage, 1, read_slot, write_slot, erase};
}

}

uint32_t FedtinyNode::now_ms(void *) { return (uint32_t)millis(); }

size_t FedtinyNode::write(void *ctx, const uint8_t *bytes, size_t count)
{
    Stream *stream = static_cast<FedtinyNode *>(ctx)->stream_;
    int takes = stream->availableForWrite(); /* 0 on many: not known, so a little that may wait for the line */
    size_t most = takes > 0 ? (size_t)takes : (size_t)BLIND;
    return stream->write(bytes, count < most ? count : most);
}

int FedtinyNode::load(void *ctx, uint8_t record[FT_WIRE_RECORD])
{
    record_storage storage = halves(static_cast<FedtinyNode *>(ctx)->storage_);
    return record_load(&storage, record, FT_WIRE_RECORD) != FT_WIRE_RECORD;
}

int FedtinyNode::store(void *ctx, const uint8_t record[FT_WIRE_RECORD])
{
    record_storage storage = halves(static_cast<FedtinyNode *>(ctx)->storage_);
    return record_save(&storage, record, FT_WIRE_RECORD);
}

bool FedtinyNode::begin(Stream &stream, FedtinyStorage &storage, void *memory, uint32_t bytes, const char *device,
                        const char *board, const ft_data *own)
{
    stream_ = &stream;
    storage_ = &storage;
    port_ = ft_wire_port();
    port_.ctx = this;
    port_.now_ms = now_ms;
    port_.write = write;
    port_.load = load;
    port_.store = store;
    facts_ = ft_wire_facts();
    facts_.device = device;
    facts_.board = board;
    ft_service_start(&service_, memory, bytes, own);
    running_ = ft_wire_start(&wire_, &port_, &facts_, ft_service_tasks(&service_)) == FT_OK;
    return running_;
}

bool FedtinyNode::banks(const ft_bank *banks, uint32_t count) { return ft_service_banks(&service_, banks, count) == FT_OK; }

uint32_t FedtinyNode::poll()
{
    uint8_t turn[TURN];
    uint32_t count = 0;
    if (!running_)
        return FT_WIRE_FOREVER;
    while (count < sizeof turn && stream_->available() > 0) {
        int byte = stream_->read();
        if (byte < 0)
            break;
        turn[count++] = (uint8_t)byte;
    }
    ft_wire_feed(&wire_, turn, count);
    uint32_t wait_ms = ft_wire_poll(&wire_);
    return ft_wire_sending(&wire_) || stream_->available() > 0 ? 0 : wait_ms;
}

void FedtinyNode::log(const char *text)
{
    if (running_)
        ft_wire_log(&wire_, text);
}

bool FedtinyNode::enrolled() const { return running_ && ft_wire_enrolled(&wire_); }

const char *FedtinyNode::device() const { return running_ ? ft_wire_device(&wire_) : ""; }

ft_node *FedtinyNode::node() { return running_ ? ft_service_node(&service_) : NULL; }

bool FedtinyNode::holds() const { return running_ && ft_wire_holds(&wire_); }
