/* A node for a bench: the host brings samples and tasks over Serial. Nothing else may print there.
 * FEDTINY_MEMORY: bytes for samples, model and arena; what a board can spare decides which models fit. */
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

alignas(8) static uint8_t memory[FEDTINY_MEMORY];
static FedtinyNode node;
static bool running;

void setup()
{
#ifdef ARDUINO_ARCH_ESP32
    Serial.setRxBufferSize(2048); /* a block of the wire and a bit more */
#endif
    Serial.begin(115200);
    storageBegin();
    running = node.begin(Serial, storage, memory, sizeof memory, "new", FEDTINY_BOARD);
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
