/* Which topic a node's frame goes to, for any MQTT client (PROTOCOL.md, "Over MQTT"). */
#ifndef FT_PORT_TOPICS_H
#define FT_PORT_TOPICS_H

#include <stddef.h>
#include <stdint.h>

enum { TOPIC_FLEET = 64, TOPIC_BYTES = 6 + TOPIC_FLEET + 1 + 31 + 7 /* fl/v1/FLEET/DEVICE/WHAT and its end */ };

/* fl/v1/<fleet>/<device>/<what>. 0 = success; 1: it is too long, or a name holds what no part of a topic may: / + # */
int topic_write(char to[TOPIC_BYTES], const char *fleet, const char *device, const char *what);

typedef struct {
    const char *what; /* up | done | caps */
    int qos, retained;
    const uint8_t *payload;
    size_t bytes;
} topic_message;

/* A REPLY goes to `done`; what an ANNOUNCE carries is the device's `caps`; all else goes to `up`, as a whole frame. */
topic_message topic_of_frame(const uint8_t *frame, size_t bytes);

#endif
