/* What the example takes of ESP-IDF's heap, as Arduino's core for the ESP32 has it. */
#ifndef STAND_IN_ESP_HEAP_CAPS_H
#define STAND_IN_ESP_HEAP_CAPS_H

#include <stddef.h>
#include <stdint.h>

#define MALLOC_CAP_SPIRAM (1 << 10)
extern "C" void *heap_caps_aligned_alloc(size_t alignment, size_t bytes, uint32_t caps);

#endif
