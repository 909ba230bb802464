/* A node for a bench: the host brings samples and tasks over Serial. Nothing else may print there.
 * FEDTINY_MEMORY: bytes for samples, model and arena; what a board can spare decides which models fit.
 * FEDTINY_PSRAM: bytes of an ESP32's PSRAM that stand for it; then FEDTINY_MEMORY is a bank for what of the arena fits there, or
 * all that the node has if no PSRAM answers. */
#include <FedtinyNode.h>
#include <FedtinyEeprom.h>

#ifndef FEDTINY_MEMORY
#define FEDTINY_MEMORY 65536
#endif
#ifndef FEDTINY_BOARD
#define FEDTINY_BOARD "arduino"
#endif

#ifdef ARDUINO_ARCH_STM32
#include <FedtinyFlashEeprom.h>
static FedtinyFlashEeprom eeprom;
static FedtinyEeprom<FedtinyFlashEeprom> storage(eeprom);
static void storageBegin() { eeprom.begin(); }
#else
#include <EEPROM.h>
static FedtinyEeprom<decltype(EEPROM)> storage(EEPROM);
static void storageBegin() { EEPROM.begin(FEDTINY_STORAGE_BYTES); }
#endif

#ifdef FEDTINY_PSRAM
#include <esp_heap_caps.h>
static void *psram() { return heap_caps_aligned_alloc(8, FEDTINY_PSRAM, MALLOC_CAP_SPIRAM); }
#else
#define FEDTINY_PSRAM 0
static void *psram() { return nullptr; }
#endif

alignas(8) static uint8_t memory[FEDTINY_MEMORY];
static const ft_bank fast = {memory, sizeof memory};
static FedtinyNode node;
static bool running;

void setup()
{
#ifdef ARDUINO_ARCH_ESP32
    Serial.setRxBufferSize(2048); /* a block of the wire and a bit more */
#endif
    Serial.begin(115200);
    storageBegin();
    void *more = psram();
    running = node.begin(Serial, storage, more ? more : memory, more ? FEDTINY_PSRAM : sizeof memory, "new", FEDTINY_BOARD);
    if (more)
        node.banks(&fast, 1);
}

void loop()
{
    if (running) {
        node.poll();
    } else {
        Serial.println("fedtiny: the record cannot be stored, so this node stays silent");
        delay(1000);
    }
}
