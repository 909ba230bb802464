/* An EEPROM for FedtinyEeprom on stm32duino, where it is one page of flash: EEPROM.write() erases that page for every byte (a
 * second each on an STM32F4); here a commit() erases it once. Both copies of the record lie in the page, so power that fails
 * within that second loses the record: the node is then a new one and wants to be enrolled again. */
#ifndef FEDTINY_FLASH_EEPROM_H
#define FEDTINY_FLASH_EEPROM_H

#include <EEPROM.h>

class FedtinyFlashEeprom {
public:
    void begin() { eeprom_buffer_fill(); }
    uint8_t read(int at) { return eeprom_buffered_read_byte((uint32_t)at); }
    void write(int at, uint8_t byte) { eeprom_buffered_write_byte((uint32_t)at, byte); }
    bool commit()
    {
        eeprom_buffer_flush();
        return true;
    }
};

#endif
