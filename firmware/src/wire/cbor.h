/* CBOR (RFC 8949) as far as the messages go, in its one deterministic encoding (section 4.2.1): heads with their number. */
#ifndef FT_CBOR_H
#define FT_CBOR_H

#include <stdbool.h>
#include <stdint.h>

enum { FT_CBOR_UINT, FT_CBOR_NINT, FT_CBOR_BYTES, FT_CBOR_TEXT, FT_CBOR_LIST, FT_CBOR_MAP, FT_CBOR_TAG, FT_CBOR_OTHER };
enum { FT_CBOR_F32 = 0xFA, FT_CBOR_F64 = 0xFB };

typedef struct {
    const uint8_t *at, *end;
} ft_cbor;

typedef struct {
    uint8_t lead, major;
    uint32_t low, high; /* of the number */
} ft_cbor_head;

bool ft_cbor_next(ft_cbor *in, ft_cbor_head *head); /* false: at the end, cut, or longer than it need be */
/* The same, for a number below 2^32 of one major type. */
bool ft_cbor_expect(ft_cbor *in, uint8_t major, uint32_t *number);
uint8_t *ft_cbor_put(uint8_t *out, uint8_t major, uint32_t low, uint32_t high);       /* returns the end */
uint8_t *ft_cbor_put_big_endian(uint8_t *out, uint8_t lead, uint32_t low, uint32_t high); /* lead's low bits say how many bytes */

#endif
