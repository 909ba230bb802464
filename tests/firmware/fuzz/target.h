/* What the target and the plain driver share. */
#ifndef TARGET_H
#define TARGET_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Makes the header's length, CRC-32 and ABI hash those of the bytes, as far as the tables lie inside. */
void fuzz_repair(uint8_t *blob, uint32_t size);

#endif
