#ifndef FEDTINY_EXAMPLE_WIFI_H
#define FEDTINY_EXAMPLE_WIFI_H

void wifi_join(const char *network, const char *password); /* goes on trying, in the background */

#endif
