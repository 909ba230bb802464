/* The stand-in on this computer: Serial is standard input and output, a pipe or a terminal, the EEPROM the file argv[1]. Ends
 * when a pipe does; a terminal may be opened again. */
#include "../Arduino.h"
#include "../EEPROM.h"
#include "../esp_heap_caps.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

namespace {

enum { EEPROM_BYTES = 1024 };
const char *eeprom_path;
uint8_t eeprom[EEPROM_BYTES];

void stop(const char *what)
{
    perror(what);
    exit(1);
}

void fill()
{
    memset(eeprom, 0xFF, sizeof eeprom);
    int fd = eeprom_path ? open(eeprom_path, O_RDONLY) : -1;
    if (fd >= 0 && (read(fd, eeprom, sizeof eeprom) < 0 || close(fd) != 0))
        stop(eeprom_path);
}

bool flush()
{
    int fd = eeprom_path ? open(eeprom_path, O_WRONLY | O_CREAT, 0600) : -1;
    return fd >= 0 && write(fd, eeprom, sizeof eeprom) == (ssize_t)sizeof eeprom && close(fd) == 0;
}

}

size_t Print::write(const uint8_t *bytes, size_t count)
{
    size_t done = 0;
    while (done < count && write(bytes[done]) == 1)
        done++;
    return done;
}

size_t Print::println(const char *text)
{
    size_t count = write((const uint8_t *)text, strlen(text));
    return count + write((const uint8_t *)"\r\n", 2);
}

void HardwareSerial::begin(unsigned long) {}

size_t HardwareSerial::setRxBufferSize(size_t) { return RING; } /* it stays as small as most */

size_t HardwareSerial::write(uint8_t byte)
{
    for (;;) {
        if (::write(1, &byte, 1) == 1)
            return 1;
        if (errno == EPIPE)
            exit(0);
        if (errno != EAGAIN && errno != EIO)
            stop("Serial");
        pollfd can = {1, POLLOUT, 0};
        ::poll(&can, 1, 10);
    }
}

int HardwareSerial::availableForWrite() { return RING - 1; }

int HardwareSerial::available()
{
    if (from_ == to_) {
        pollfd can = {0, POLLIN, 0};
        if (::poll(&can, 1, 0) == 1) {
            ssize_t count = ::read(0, ring_, RING - 1);
            if (count == 0)
                exit(0);
            from_ = 0;
            to_ = count > 0 ? (size_t)count : 0;
        }
    }
    return (int)(to_ - from_);
}

int HardwareSerial::read() { return available() ? ring_[from_++] : -1; }

int HardwareSerial::peek() { return available() ? ring_[from_] : -1; }

HardwareSerial Serial;

bool EEPROMClass::begin(size_t bytes)
{
    fill();
    return bytes <= sizeof eeprom;
}

uint8_t EEPROMClass::read(int at) { return eeprom[at]; }
void EEPROMClass::write(int at, uint8_t byte) { eeprom[at] = byte; }
bool EEPROMClass::commit() { return flush(); }
EEPROMClass EEPROM;

void eeprom_buffer_fill() { fill(); }
void eeprom_buffer_flush() { flush(); }
uint8_t eeprom_buffered_read_byte(const uint32_t pos) { return eeprom[pos]; }
void eeprom_buffered_write_byte(uint32_t pos, uint8_t value) { eeprom[pos] = value; }

unsigned long millis()
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000;
}

void delay(unsigned long ms) { usleep((useconds_t)ms * 1000); }

int main(int argc, char **argv)
{
    eeprom_path = argc > 1 ? argv[1] : nullptr;
    setup();
    for (;;) {
        loop();
        pollfd can = {0, POLLIN, 0};
        ::poll(&can, 1, 1); /* a chip's loop spins; here others want the processor */
    }
}

/* A chip of $PSRAM_BYTES. */
void *heap_caps_aligned_alloc(size_t alignment, size_t bytes, uint32_t caps)
{
    const char *chip = getenv("PSRAM_BYTES");
    return caps == MALLOC_CAP_SPIRAM && chip && bytes <= strtoul(chip, NULL, 10) ? aligned_alloc(alignment, bytes) : NULL;
}
