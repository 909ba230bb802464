/* Monocypher as a node needs it: BLAKE2b in a loop, 10 KB smaller than unrolled. */
#define BLAKE2_NO_UNROLLING
#include "monocypher/monocypher.c"
