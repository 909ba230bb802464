/* A slot: u32 ticket | u32 CRC-32 of the ticket and the numbers | the numbers, filled up to 8 bytes | u16 label | u16 its complement |
 * u8 1: of the development set | u8[3] 0. The last 8 bytes are erased until the label comes. */
#include "fedtiny_capture.h"

#include "../blob.h"
#include "../bytes.h"
#include "../num.h"

enum { HEAD = 8, TAIL = 8, PIECE = 64, UNIT = 8, MOST_SLOTS = 65535, MOST_FLOATS = 1 << 24 };

static uint32_t number_bytes(uint8_t form) { return form == FT_RING_F32 ? 4 : form == FT_RING_I16 ? 2 : 1; }

static uint32_t tail_at(uint32_t floats, uint8_t form)
{
    return HEAD + (floats * number_bytes(form) + UNIT - 1) / UNIT * UNIT;
}

uint32_t ft_ring_slot_bytes(uint32_t floats, uint8_t form) { return tail_at(floats, form) + TAIL; }

static uint32_t tail_of(const ft_ring *r) { return tail_at(r->config.floats, r->config.form); }

static bool read_bytes(const ft_ring *r, uint32_t slot, uint32_t at, void *to, uint32_t count)
{
    return r->config.store->read(r->config.store->ctx, slot, at, to, count) == 0;
}

static bool write_bytes(const ft_ring *r, uint32_t slot, uint32_t at, const void *from, uint32_t count)
{
    return r->config.store->write(r->config.store->ctx, slot, at, from, count) == 0;
}

/* -- Numbers */

static void pack(const ft_ring *r, uint8_t *to, float x)
{
    float low = r->config.form == FT_RING_I16 ? -32768.0f : 0.0f, high = r->config.form == FT_RING_I16 ? 32767.0f : 255.0f;
    if (r->config.form == FT_RING_F32) {
        memcpy(to, &x, sizeof x);
        return;
    }
    float n = (x - r->config.offset) / r->config.scale;
    n = n < low ? low : n > high ? high : n;
    int32_t number = (int32_t)(n < 0.0f ? n - 0.5f : n + 0.5f);
    to[0] = (uint8_t)number;
    if (r->config.form == FT_RING_I16)
        to[1] = (uint8_t)(number >> 8);
}

static float unpack(const ft_ring *r, const uint8_t *from)
{
    if (r->config.form == FT_RING_F32)
        return ft_load_f32(from);
    int32_t number = r->config.form == FT_RING_U8 ? from[0] : (int16_t)ft_load_u16(from);
    return r->config.offset + r->config.scale * (float)number;
}

static int read_sample(void *ctx, uint32_t index, float *x, uint16_t *label)
{
    const ft_ring *r = ctx;
    uint32_t each = number_bytes(r->config.form), slot, at = HEAD, left = r->config.floats;
    uint8_t piece[PIECE];
    if (index >= r->data.count)
        return 1;
    slot = r->config.order[index];
    for (uint32_t count; left; left -= count, at += count * each) {
        count = left < PIECE / each ? left : PIECE / each;
        if (!read_bytes(r, slot, at, piece, count * each))
            return 1;
        for (uint32_t i = 0; i < count; i++)
            *x++ = unpack(r, piece + i * each);
    }
    if (!read_bytes(r, slot, tail_of(r), piece, TAIL))
        return 1;
    *label = ft_load_u16(piece);
    return 0;
}

/* -- What there is: order holds the development set, other labelled samples, samples without a label */

static void move(uint16_t *order, uint32_t from, uint32_t to)
{
    uint16_t slot = order[from];
    for (; from > to; from--)
        order[from] = order[from - 1];
    for (; from < to; from++)
        order[from] = order[from + 1];
    order[to] = slot;
}

static void drop(ft_ring *r, uint32_t i)
{
    move(r->config.order, i, r->used - 1);
    r->used--;
    if (i < r->data.count)
        r->data.count--;
}

static void enter(ft_ring *r, uint32_t i, bool dev)
{
    move(r->config.order, i, dev ? r->data.dev_count : r->data.count);
    r->data.count++;
    r->data.dev_count += dev;
    r->labelled++;
}

/* Is one of the first `count` samples of order in this slot's group? */
static bool any_in(const ft_ring *r, uint32_t count, uint32_t slot)
{
    for (uint32_t i = 0; i < count; i++)
        if (r->config.order[i] / r->config.store->group == slot / r->config.store->group)
            return true;
    return false;
}

static uint32_t ticket_in(const ft_ring *r, uint32_t slot)
{
    uint8_t head[HEAD];
    return read_bytes(r, slot, 0, head, HEAD) ? ft_load_u32(head) : 0;
}

/* -- Starting */

enum { BLANK, WHOLE, BROKEN, FAILED };

static int look(const ft_ring *r, uint32_t slot, uint32_t *ticket, uint8_t *tail)
{
    uint8_t piece[PIECE];
    uint32_t crc = 0xFFFFFFFFu, end = tail_of(r), count, wanted = 0, numbers = HEAD + r->config.floats * number_bytes(r->config.form);
    bool blank = true;
    for (uint32_t at = 0; at < end; at += count) {
        count = end - at < PIECE ? end - at : PIECE;
        if (!read_bytes(r, slot, at, piece, count))
            return FAILED;
        for (uint32_t i = 0; i < count; i++)
            blank = blank && piece[i] == 0xFF;
        if (at == 0) {
            *ticket = ft_load_u32(piece);
            wanted = ft_load_u32(piece + 4);
            memset(piece + 4, 0, 4);
        }
        crc = ft_blob_crc(crc, piece, at + count <= numbers ? count : numbers - at);
    }
    if (!read_bytes(r, slot, end, tail, TAIL))
        return FAILED;
    for (uint32_t i = 0; i < TAIL; i++)
        blank = blank && tail[i] == 0xFF;
    return blank ? BLANK : ~crc == wanted && *ticket ? WHOLE : BROKEN;
}

static bool unlabelled(const uint8_t *tail)
{
    return ft_load_u32(tail) == 0xFFFFFFFFu && ft_load_u32(tail + 4) == 0xFFFFFFFFu;
}

static ft_status take_up(ft_ring *r)
{
    const ft_ring_store *store = r->config.store;
    uint32_t ticket, newest = 0;
    uint8_t tail[TAIL];
    for (uint32_t slot = 0; slot < store->slots; slot++) {
        int found = look(r, slot, &ticket, tail);
        if (found == FAILED)
            return FT_ERR_DATA;
        if (found != WHOLE)
            continue;
        uint16_t label = ft_load_u16(tail);
        bool labelled = (label ^ ft_load_u16(tail + 2)) == 0xFFFF && label < r->config.classes;
        if (!labelled && !unlabelled(tail)) /* power failed while the label was written */
            continue;
        r->config.order[r->used++] = (uint16_t)slot;
        if (labelled)
            enter(r, r->used - 1, tail[4] == 1 && r->data.dev_count < r->config.dev_most);
        if (ticket > newest) {
            newest = ticket;
            r->cursor = (slot + 1) % store->slots;
        }
    }
    r->ticket = newest;
    return FT_OK;
}

ft_status ft_ring_start(ft_ring *r, const ft_ring_config *config)
{
    const ft_ring_store *store = config ? config->store : 0;
    if (!r || !store || !config->order || config->floats < 1 || config->floats > MOST_FLOATS || config->form > FT_RING_U8
        || config->policy > FT_RING_KEEP || store->slots < 1 || store->slots > MOST_SLOTS || store->group < 1
        || store->slots % store->group || (config->policy == FT_RING_RESERVOIR && store->group != 1)
        || (config->form != FT_RING_F32 && !(config->scale > 0.0f)) || config->classes < 1
        || (config->dev_most && config->policy != FT_RING_KEEP && (store->group == 1 ? config->dev_most : store->group) >= store->slots))
        return FT_ERR_ARG;
    memset(r, 0, sizeof *r);
    r->config = *config;
    r->random = config->seed | 1u;
    r->data = (ft_data){r, read_sample, 0, 0};
    return take_up(r);
}

/* -- A new sample */

static uint32_t draw(ft_ring *r, uint32_t below) /* xorshift32 */
{
    r->random ^= r->random << 13;
    r->random ^= r->random >> 17;
    r->random ^= r->random << 5;
    return r->random % below;
}

/* Whatever lies in the group of this slot goes. */
static bool clear(ft_ring *r, uint32_t slot)
{
    const ft_ring_store *store = r->config.store;
    for (uint32_t i = r->used; i-- > 0;)
        if (r->config.order[i] / store->group == slot / store->group)
            drop(r, i);
    return store->erase(store->ctx, slot / store->group * store->group) == 0;
}

/* The next slot in turn, erased; a group with a sample of the development set is passed over. */
static ft_status next_slot(ft_ring *r, uint32_t *slot)
{
    const ft_ring_store *store = r->config.store;
    uint32_t ticket;
    uint8_t tail[TAIL];
    for (uint32_t passed = 0; passed <= store->slots; passed++, r->cursor = (r->cursor + 1) % store->slots) {
        *slot = r->cursor;
        int found = look(r, *slot, &ticket, tail);
        if (found == FAILED)
            return FT_ERR_DATA;
        if (found == BLANK)
            break;
        if (*slot % store->group || any_in(r, r->config.policy == FT_RING_KEEP ? r->used : r->data.dev_count, *slot))
            continue;
        if (!clear(r, *slot))
            return FT_ERR_DATA;
        break;
    }
    if (look(r, *slot, &ticket, tail) != BLANK)
        return FT_ERR_NOMEM;
    r->cursor = (*slot + 1) % store->slots;
    return FT_OK;
}

/* Of a full ring: FT_OK with the slot of one that goes, or *slot = slots where the new one is not taken. */
static ft_status drawn_slot(ft_ring *r, uint32_t *slot)
{
    uint32_t most = r->config.store->slots - r->data.dev_count, came = r->ticket + 1 - r->data.dev_count;
    uint32_t i = draw(r, came);
    *slot = r->config.store->slots;
    if (i >= most)
        return FT_OK;
    *slot = r->config.order[r->data.dev_count + i];
    return clear(r, *slot) ? FT_OK : FT_ERR_DATA;
}

static bool write_sample(ft_ring *r, uint32_t slot, const float *x)
{
    uint32_t each = number_bytes(r->config.form), end = tail_of(r), numbers = HEAD + r->config.floats * each, crc = 0xFFFFFFFFu, count;
    uint8_t piece[PIECE];
    for (uint32_t pass = 0; pass < 2; pass++) /* the sum first: it stands before what it sums up */
        for (uint32_t at = 0; at < end; at += count) {
            count = end - at < PIECE ? end - at : PIECE;
            memset(piece, 0, sizeof piece);
            for (uint32_t i = at ? 0 : HEAD; i < count && at + i < numbers; i += each)
                pack(r, piece + i, x[(at + i - HEAD) / each]);
            if (at == 0) {
                ft_store_u32(piece, r->ticket);
                ft_store_u32(piece + 4, pass ? ~crc : 0);
            }
            if (pass == 0)
                crc = ft_blob_crc(crc, piece, at + count <= numbers ? count : numbers - at);
            else if (!write_bytes(r, slot, at, piece, count))
                return false;
        }
    return true;
}

ft_status ft_ring_put(ft_ring *r, const float *x, uint32_t *ticket)
{
    uint32_t slot, unused = 0;
    ft_status status;
    ticket = ticket ? ticket : &unused;
    *ticket = 0;
    for (uint32_t i = 0; i < r->config.floats; i++)
        if (!ft_num_finite(x[i]))
            return FT_ERR_NONFINITE;
    if (r->config.policy == FT_RING_RESERVOIR && r->used == r->config.store->slots)
        status = drawn_slot(r, &slot);
    else
        status = next_slot(r, &slot);
    if (status != FT_OK)
        return status;
    r->ticket++;
    if (slot == r->config.store->slots)
        return FT_OK;
    if (!write_sample(r, slot, x))
        return FT_ERR_DATA;
    r->config.order[r->used++] = (uint16_t)slot;
    *ticket = r->ticket;
    return FT_OK;
}

ft_status ft_ring_label(ft_ring *r, uint32_t ticket, uint16_t label)
{
    uint8_t tail[TAIL] = {(uint8_t)label, (uint8_t)(label >> 8), (uint8_t)~label, (uint8_t)(~label >> 8)};
    uint32_t i = r->data.count;
    while (i < r->used && ticket_in(r, r->config.order[i]) != ticket)
        i++;
    if (ticket == 0 || i == r->used || label >= r->config.classes)
        return FT_ERR_ARG;
    const ft_ring_store *store = r->config.store;
    bool dev = r->config.dev_every && r->data.dev_count < r->config.dev_most && (r->labelled + 1) % r->config.dev_every == 0
               && (store->group == 1 || r->config.order[i] < store->group); /* or all groups would be held for good */
    tail[4] = dev;
    if (!write_bytes(r, r->config.order[i], tail_of(r), tail, TAIL))
        return FT_ERR_DATA;
    enter(r, i, dev);
    return FT_OK;
}

const ft_data *ft_ring_data(const ft_ring *r) { return &r->data; }
ft_status ft_ring_bind(const ft_ring *r, ft_node *node) { return node ? ft_set_data(node, &r->data) : FT_OK; }
uint32_t ft_ring_waiting(const ft_ring *r) { return r->used - r->data.count; }

/* -- In RAM */

static int read_bank(void *ctx, uint32_t slot, uint32_t at, void *to, uint32_t count)
{
    const ft_ring_bank *bank = ctx;
    memcpy(to, bank->at + slot * bank->slot_bytes + at, count);
    return 0;
}

static int write_bank(void *ctx, uint32_t slot, uint32_t at, const void *from, uint32_t count)
{
    const ft_ring_bank *bank = ctx;
    memcpy(bank->at + slot * bank->slot_bytes + at, from, count);
    return 0;
}

static int erase_bank(void *ctx, uint32_t slot)
{
    const ft_ring_bank *bank = ctx;
    memset(bank->at + slot * bank->slot_bytes, 0xFF, bank->slot_bytes);
    return 0;
}

ft_ring_store ft_ring_in_bank(ft_ring_bank *bank, void *at, uint32_t bytes, uint32_t floats, uint8_t form)
{
    uint32_t slots;
    *bank = (ft_ring_bank){at, ft_ring_slot_bytes(floats, form)};
    slots = bytes / bank->slot_bytes;
    slots = slots < MOST_SLOTS ? slots : MOST_SLOTS;
    memset(at, 0xFF, slots * bank->slot_bytes);
    return (ft_ring_store){bank, slots, 1, read_bank, write_bank, erase_bank};
}
