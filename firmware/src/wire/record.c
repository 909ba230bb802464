#include "../bytes.h"
#include "monocypher.h"
#include "wire.h"

enum { VERSION = 0, FLAGS = 1, ID_BYTES = 2, BOOTS = 4, KEY = 8, ID = 40, HAS_KEY = 1, THIS_VERSION = 1 };

static bool good(const uint8_t *r)
{
    return r[VERSION] == THIS_VERSION && r[FLAGS] <= HAS_KEY && r[ID_BYTES] >= 1 && r[ID_BYTES] <= FT_WIRE_ID
           && r[ID + r[ID_BYTES]] == 0;
}

static void name(uint8_t *r, const void *id, uint32_t bytes)
{
    memset(r + ID, 0, FT_WIRE_RECORD - ID);
    memcpy(r + ID, id, bytes);
    r[ID_BYTES] = (uint8_t)bytes;
}

static bool keep(ft_wire *wire, const uint8_t *r)
{
    if (wire->port->store(wire->port->ctx, r) != 0)
        return false;
    memcpy(wire->record, r, FT_WIRE_RECORD);
    return true;
}

bool ft_record_start(ft_wire *wire)
{
    uint8_t r[FT_WIRE_RECORD];
    if (wire->port->load(wire->port->ctx, r) != 0 || !good(r)) {
        memset(r, 0, sizeof r);
        r[VERSION] = THIS_VERSION;
    }
    if (!(r[FLAGS] & HAS_KEY))
        name(r, wire->facts->device, (uint32_t)strlen(wire->facts->device));
    ft_store_u32(r + BOOTS, ft_load_u32(r + BOOTS) + 1);
    return keep(wire, r);
}

bool ft_record_enrol(ft_wire *wire, const void *id, uint32_t id_bytes, const uint8_t *key)
{
    uint8_t r[FT_WIRE_RECORD];
    memcpy(r, wire->record, sizeof r);
    r[FLAGS] = key ? HAS_KEY : 0;
    memset(r + KEY, 0, FT_WIRE_KEY);
    if (key)
        memcpy(r + KEY, key, FT_WIRE_KEY);
    name(r, id, id_bytes);
    wire->hands.offered = false; /* with another key, or none */
    return keep(wire, r);
}

bool ft_record_forget(ft_wire *wire) { return ft_record_enrol(wire, wire->facts->device, (uint32_t)strlen(wire->facts->device), 0); }

uint32_t ft_record_boots(const ft_wire *wire) { return ft_load_u32(wire->record + BOOTS); }

const uint8_t *ft_record_id(const ft_wire *wire, uint32_t *bytes)
{
    *bytes = wire->record[ID_BYTES];
    return wire->record + ID;
}

const uint8_t *ft_record_key(const ft_wire *wire) { return wire->record[FLAGS] & HAS_KEY ? wire->record + KEY : 0; }

const char *ft_wire_device(const ft_wire *wire) { return (const char *)wire->record + ID; }
bool ft_wire_enrolled(const ft_wire *wire) { return ft_record_key(wire) != 0; }
