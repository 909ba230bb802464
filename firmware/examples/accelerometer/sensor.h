/* What this example asks of a sensor: acceleration and rotation, each of three axes. sensor_synthetic.c stands in for one; for a real one write
 * these three functions in a file of your own in its place. */
#ifndef SENSOR_H
#define SENSOR_H

#include <stdbool.h>
#include <stdint.h>

enum { AXES = 6, ACTIVITIES = 3 };

void sensor_start(void);
bool sensor_read(float reading[AXES]);   /* false: none is due */
uint16_t sensor_activity(void);          /* what the wearer says that it is: a knob, an app, a button pressed before */

#endif
