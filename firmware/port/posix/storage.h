/* The record (record.h) in a file of two slots, one after the other. */
#ifndef FT_PORT_STORAGE_H
#define FT_PORT_STORAGE_H

#include "../record.h"

record_storage posix_storage(const char *path); /* path must outlive it; the file is made, for its owner alone, by the first save */

#endif
