#include "wifi.h"

#include <string.h>

#include "esp_event.h"
#include "esp_netif.h"
#include "esp_wifi.h"

static void on_wifi(void *ctx, esp_event_base_t base, int32_t id, void *data)
{
    (void)ctx;
    (void)base;
    (void)data;
    if (id == WIFI_EVENT_STA_START || id == WIFI_EVENT_STA_DISCONNECTED)
        esp_wifi_connect();
}

void wifi_join(const char *network, const char *password)
{
    const wifi_init_config_t defaults = WIFI_INIT_CONFIG_DEFAULT();
    wifi_config_t config = {0};
    strncpy((char *)config.sta.ssid, network, sizeof config.sta.ssid);
    strncpy((char *)config.sta.password, password, sizeof config.sta.password - 1);
    ESP_ERROR_CHECK(esp_netif_init());
    ESP_ERROR_CHECK(esp_event_loop_create_default());
    esp_netif_create_default_wifi_sta();
    ESP_ERROR_CHECK(esp_wifi_init(&defaults));
    ESP_ERROR_CHECK(esp_event_handler_register(WIFI_EVENT, ESP_EVENT_ANY_ID, on_wifi, NULL));
    ESP_ERROR_CHECK(esp_wifi_set_mode(WIFI_MODE_STA));
    ESP_ERROR_CHECK(esp_wifi_set_config(WIFI_IF_STA, &config));
    ESP_ERROR_CHECK(esp_wifi_start());
}
