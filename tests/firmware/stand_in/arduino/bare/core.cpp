/* The stand-in where only linking is to be seen: nothing is on the line, nothing is stored. */
#include "../Arduino.h"
#include "../EEPROM.h"

size_t Print::write(const uint8_t *, size_t) { return 0; }
size_t Print::println(const char *) { return 0; }

void HardwareSerial::begin(unsigned long) {}
size_t HardwareSerial::setRxBufferSize(size_t) { return 0; }
size_t HardwareSerial::write(uint8_t) { return 0; }
int HardwareSerial::availableForWrite() { return 0; }
int HardwareSerial::available() { return 0; }
int HardwareSerial::read() { return -1; }
int HardwareSerial::peek() { return -1; }
HardwareSerial Serial;

bool EEPROMClass::begin(size_t) { return true; }
uint8_t EEPROMClass::read(int) { return 0xFF; }
void EEPROMClass::write(int, uint8_t) {}
bool EEPROMClass::commit() { return false; }
EEPROMClass EEPROM;

void eeprom_buffer_fill() {}
void eeprom_buffer_flush() {}
uint8_t eeprom_buffered_read_byte(const uint32_t) { return 0xFF; }
void eeprom_buffered_write_byte(uint32_t, uint8_t) {}

unsigned long millis() { return 0; }
void delay(unsigned long) {}

extern "C" void __cxa_pure_virtual()
{
    for (;;)
        ;
}

int main()
{
    setup();
    for (;;)
        loop();
}
