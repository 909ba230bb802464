/* The key exchange of the profile psk-fs. */
#include "monocypher.h"
#include "fedtiny_wire.h"

static void public_key(uint8_t out[FT_WIRE_KEY], const uint8_t secret[FT_WIRE_KEY]) { crypto_x25519_public_key(out, secret); }

static bool shared(uint8_t out[FT_WIRE_KEY], const uint8_t secret[FT_WIRE_KEY], const uint8_t theirs[FT_WIRE_KEY])
{
    static const uint8_t zeros[FT_WIRE_KEY];
    crypto_x25519(out, secret, theirs);
    return crypto_verify32(out, zeros) != 0; /* a point of small order gives zeros (RFC 7748, section 6.1) */
}

const ft_wire_exchange ft_wire_x25519 = {public_key, shared};
