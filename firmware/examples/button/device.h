/* What this example asks of a device: a microphone or an accelerometer that wakes it at a knock, and two buttons. device_synthetic.c stands in for
 * one; for a real one write these three functions in a file of your own in its place. */
#ifndef DEVICE_H
#define DEVICE_H

#include <stdbool.h>
#include <stdint.h>

enum { KNOCK = 64, BUTTONS = 2 };

void device_start(void);
bool device_knock(float x[KNOCK]); /* false: none came since */
int device_button(void);           /* the one that was pressed since the last call, or -1 */

#endif
