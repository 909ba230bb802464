/* EEPROM of the stand-in: bytes that wait for commit(), as on ESP32 and RP2040, and stm32duino's calls for a page of flash. */
#ifndef STAND_IN_EEPROM_H
#define STAND_IN_EEPROM_H

#include <stddef.h>
#include <stdint.h>

class EEPROMClass {
public:
    bool begin(size_t bytes);
    uint8_t read(int at);
    void write(int at, uint8_t byte);
    bool commit();
};

extern EEPROMClass EEPROM;

extern "C" {
void eeprom_buffer_fill();
void eeprom_buffer_flush();
uint8_t eeprom_buffered_read_byte(const uint32_t pos);
void eeprom_buffered_write_byte(uint32_t pos, uint8_t value);
}

#endif
