/* What outlives a program, in files: the record (record.h) in RECORD, two slots one after the other; models in RECORD.model-0 and
 * RECORD.model-1, samples in RECORD.samples. */
#ifndef FT_PORT_STORAGE_H
#define FT_PORT_STORAGE_H

#include "../record.h"
#include "fedtiny_storage.h"

/* path must outlive both; a file is made, for its owner alone, by the first write. */
record_storage posix_storage(const char *path);
ft_storage posix_areas(const char *path);

#endif
