/* The snapshots of a store. See snapshots.h. */
#include "vm/snapshots.h"

#include <stdio.h>
#include <stdlib.h>

#include "util/cleanup.h"
#include "util/error.h"

int sm_snapshots_open(
    const struct sm_imgstore *store, struct sm_snapshot_cache **cache, sm_error *err)
{
    auto_free char *dir = NULL;
    if (asprintf(&dir, "%s/snapshots", sm_imgstore_path(store)) < 0) {
        dir = NULL;
        return sm_error_set(err, SM_ENOMEM, "no memory for a path");
    }
    return sm_snapshot_cache_open(dir, cache, err);
}
