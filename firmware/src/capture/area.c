#include "fedtiny_capture.h"

enum { MOST_SLOTS = 65535 };

static int read_area(void *ctx, uint32_t slot, uint32_t at, void *to, uint32_t count)
{
    const ft_ring_area *place = ctx;
    return place->storage->read(place->storage->ctx, place->area, slot * place->slot_bytes + at, to, count);
}

static int write_area(void *ctx, uint32_t slot, uint32_t at, const void *from, uint32_t count)
{
    const ft_ring_area *place = ctx;
    return place->storage->write(place->storage->ctx, place->area, slot * place->slot_bytes + at, from, count);
}

static int erase_area(void *ctx, uint32_t slot)
{
    const ft_ring_area *place = ctx;
    (void)slot;
    return place->storage->erase(place->storage->ctx, place->area);
}

ft_ring_store ft_ring_in_area(ft_ring_area *place, const ft_storage *storage, uint32_t area, uint32_t floats, uint8_t form)
{
    uint32_t slots;
    *place = (ft_ring_area){storage, area, ft_ring_slot_bytes(floats, form)};
    slots = storage->bytes[area] / place->slot_bytes;
    slots = slots < MOST_SLOTS ? slots : MOST_SLOTS;
    return (ft_ring_store){place, slots, slots, read_area, write_area, erase_area};
}
