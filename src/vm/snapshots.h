/* Where the snapshots of a store are. */
#ifndef SM_VM_SNAPSHOTS_H
#define SM_VM_SNAPSHOTS_H

#include "image/store.h"
#include "snapshot/cache.h"

/* The caller closes it. */
int sm_snapshots_open(
    const struct sm_imgstore *store, struct sm_snapshot_cache **cache, sm_error *err);

#endif
