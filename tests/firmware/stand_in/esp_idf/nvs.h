#pragma once
#include "esp_err.h"

typedef uint32_t nvs_handle_t;
typedef enum { NVS_READONLY, NVS_READWRITE } nvs_open_mode_t;
esp_err_t nvs_open(const char *space, nvs_open_mode_t mode, nvs_handle_t *nvs);
esp_err_t nvs_get_blob(nvs_handle_t nvs, const char *name, void *to, size_t *bytes);
esp_err_t nvs_set_blob(nvs_handle_t nvs, const char *name, const void *from, size_t bytes);
esp_err_t nvs_commit(nvs_handle_t nvs);
void nvs_close(nvs_handle_t nvs);
