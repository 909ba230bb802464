#include "topics.h"

#include <string.h>

enum { HEADER = 8, CHECK = 4, ANNOUNCE = 6, REPLY = 17 };

static size_t add(char *to, size_t at, const char *part)
{
    size_t length = strlen(part);
    if (at + length >= TOPIC_BYTES)
        return TOPIC_BYTES;
    memcpy(to + at, part, length + 1);
    return at + length;
}

int topic_write(char to[TOPIC_BYTES], const char *fleet, const char *device, const char *what)
{
    const char *parts[] = {"fl/v1/", fleet, "/", device, "/", what};
    size_t at = 0;
    if (!*fleet || !*device || strpbrk(fleet, "/+#") || strpbrk(device, "/+#"))
        return 1;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        at = add(to, at, parts[i]);
    return at >= TOPIC_BYTES;
}

topic_message topic_of_frame(const uint8_t *frame, size_t bytes)
{
    if (bytes > HEADER + CHECK && frame[1] == ANNOUNCE)
        return (topic_message){"caps", 1, 1, frame + HEADER, bytes - HEADER - CHECK};
    if (bytes > HEADER && frame[1] == REPLY)
        return (topic_message){"done", 1, 0, frame, bytes};
    return (topic_message){"up", 0, 0, frame, bytes};
}
