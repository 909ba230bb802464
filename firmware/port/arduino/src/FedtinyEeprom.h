/* Storage in an EEPROM, or in what a core offers under that name. eeprom: read(address) and write(address, byte); where bytes
 * wait for a commit() (ESP32, RP2040), that comes after each write. base: where FEDTINY_STORAGE_BYTES are free. */
#ifndef FEDTINY_EEPROM_H
#define FEDTINY_EEPROM_H

#include "FedtinyNode.h"

template <typename Eeprom> class FedtinyEeprom : public FedtinyStorage {
public:
    explicit FedtinyEeprom(Eeprom &eeprom, uint32_t base = 0) : eeprom_(eeprom), base_(base) {}

    bool read(uint32_t at, uint8_t *to, uint32_t bytes) override
    {
        for (uint32_t i = 0; i < bytes; i++)
            to[i] = eeprom_.read((int)(base_ + at + i));
        return true;
    }

    bool write(uint32_t at, const uint8_t *from, uint32_t bytes) override
    {
        for (uint32_t i = 0; i < bytes; i++)
            if (eeprom_.read((int)(base_ + at + i)) != from[i])
                eeprom_.write((int)(base_ + at + i), from[i]);
        return commit(eeprom_, 0);
    }

private:
    template <typename E> static auto commit(E &eeprom, int) -> decltype(bool(eeprom.commit())) { return eeprom.commit(); }
    template <typename E> static bool commit(E &, long) { return true; }

    Eeprom &eeprom_;
    uint32_t base_;
};

#endif
