/* The compiler's own; its <stdint.h> would look for a C library's. */
#include <stdint-gcc.h>
