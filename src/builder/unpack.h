/* The layers of a plan, read from their source, checked, decompressed and applied. */
#ifndef SM_BUILDER_UNPACK_H
#define SM_BUILDER_UNPACK_H

#include "builder/plan.h"
#include "rootfs/rootfs.h"

/* Told now and then, also while nothing comes, of the bytes of compressed layers that were read. */
typedef void sm_unpack_progress_fn(
    void *arg, size_t layer, size_t layers, uint64_t done, uint64_t total);

int sm_unpack(struct sm_source *source, const struct sm_plan *plan, struct sm_rootfs *rootfs,
    sm_unpack_progress_fn *progress, void *arg, sm_error *err);

#endif
