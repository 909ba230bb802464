/* A node behind a broker. Network, broker and password come from the build: idf.py -DWIFI_NETWORK=... (CMakeLists.txt); the
 * authority's certificate is main/authority.pem. The node's key is there already: enrol it with the other example first. */
#include "fedtiny_esp32.h"
#include "nvs_flash.h"
#include "wifi.h"

enum { LEFT = 65536 /* bytes of heap for Wi-Fi, TLS and everything else */ };

extern const char authority[] __asm__("_binary_authority_pem_start");

void app_main(void)
{
    const fedtiny_mqtt mqtt = {BROKER_URI, authority, BROKER_PASSWORD, BROKER_FLEET};
    ESP_ERROR_CHECK(nvs_flash_init());
    wifi_join(WIFI_NETWORK, WIFI_PASSWORD);
    ESP_ERROR_CHECK(fedtiny_run_mqtt(&mqtt, fedtiny_memory(LEFT), NULL));
}
