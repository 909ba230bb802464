/* What a test or benchmark program may ask of the machine below it: the same calls on an emulated board and on a host.
 *
 * Such a program is an ordinary main(argc, argv). Paths are the host's, relative to the folder the emulator runs in. */
#ifndef FT_PORT_H
#define FT_PORT_H

#include <stdint.h>

/* One piece of memory, 8-byte aligned, for blob, samples and arena: what the program itself leaves of the first RAM bank. */
void *port_memory(uint32_t *bytes);

void port_print(const char *text);
void port_print_number(uint64_t number); /* decimal */

/* Reads a whole file; its bytes, or PORT_FAILED when it is missing or longer than capacity. */
enum { PORT_FAILED = 0xFFFFFFFF };
uint32_t port_read_file(const char *path, void *to, uint32_t capacity);
int port_write_file(const char *path, const void *from, uint32_t bytes); /* 0 = success */

/* Instructions executed since the program started. Exact, and the same in every run, where the emulator counts; its own
 * few are among them: two calls in a row give their number. 0 on a host. */
uint64_t port_count(void);

void port_exit(int code); /* code 0 to 98; 99 is a fault: an access outside of memory, an undefined instruction */

#endif
