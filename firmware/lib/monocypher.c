/* Monocypher as a node needs it: BLAKE2b in a loop, where anything takes it. */
#define BLAKE2_NO_UNROLLING
#include "monocypher/monocypher.c"
