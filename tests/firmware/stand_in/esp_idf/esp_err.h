/* Stand-ins for the headers of ESP-IDF that the port uses: the names and types of version 5, as far as used. esp_idf.c makes
 * them work on a host. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef int esp_err_t;
enum { ESP_OK = 0, ESP_FAIL = -1, ESP_ERR_NO_MEM = 0x101, ESP_ERR_INVALID_ARG = 0x102, ESP_ERR_INVALID_STATE = 0x103,
       ESP_ERR_NOT_FOUND = 0x105 };
#define ESP_ERROR_CHECK(call)                                      \
    do {                                                           \
        esp_err_t error_ = (call);                                 \
        if (error_ != ESP_OK) {                                    \
            fprintf(stderr, "%s: error %#x\n", #call, error_);     \
            exit(4);                                               \
        }                                                          \
    } while (0)
