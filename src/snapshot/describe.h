/* A snapshot file as something to look at. */
#ifndef SM_SNAPSHOT_DESCRIBE_H
#define SM_SNAPSHOT_DESCRIBE_H

#include "snapshot/snapshot.h"

/* All that it says but its RAM, as JSON text, malloc'ed; `fd` is its file, `name` for messages. */
int sm_snapshot_describe(
    int fd, const char *name, const struct sm_snapshot *snapshot, char **json, sm_error *err);

#endif
