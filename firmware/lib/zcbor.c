/* zcbor as the wire needs it: one encoding of every message, and no other is read. */
#define ZCBOR_CANONICAL
#if defined __GNUC__ && !defined __clang__
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wstrict-aliasing"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#elif defined __clang__
#pragma clang diagnostic ignored "-Wunused-but-set-variable"
#endif
#include "zcbor/zcbor_common.c"
#include "zcbor/zcbor_decode.c"
#include "zcbor/zcbor_encode.c"
