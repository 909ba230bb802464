/* PlatformIO looks for sketches in one folder alone. */
#include <Arduino.h>

#include "../arduino/examples/BenchNode/BenchNode.ino"
