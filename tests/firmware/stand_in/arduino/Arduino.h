/* What firmware/port/arduino takes of an Arduino core, declared as Arduino's cores declare it. Not such a core: see core.cpp. */
#ifndef STAND_IN_ARDUINO_H
#define STAND_IN_ARDUINO_H

#include <stddef.h>
#include <stdint.h>

class Print {
public:
    virtual size_t write(uint8_t byte) = 0;
    virtual size_t write(const uint8_t *bytes, size_t count);
    virtual int availableForWrite() { return 0; }
    size_t println(const char *text);
};

class Stream : public Print {
public:
    virtual int available() = 0;
    virtual int read() = 0;
    virtual int peek() = 0;
};

/* A UART with the small rings of the real ones. */
class HardwareSerial : public Stream {
public:
    void begin(unsigned long baud);
    size_t setRxBufferSize(size_t bytes); /* of ESP32's cores: before begin() */
    using Print::write;
    size_t write(uint8_t byte) override;
    int availableForWrite() override;
    int available() override;
    int read() override;
    int peek() override;

private:
    enum { RING = 64 };
    uint8_t ring_[RING];
    size_t from_ = 0, to_ = 0;
};

extern HardwareSerial Serial;

unsigned long millis();
void delay(unsigned long ms);

void setup();
void loop();

#endif
