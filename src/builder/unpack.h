/* The layers of a plan, read from their source, checked, and given to who writes the file
 * system. */
#ifndef SM_BUILDER_UNPACK_H
#define SM_BUILDER_UNPACK_H

#include "builder/parsers.h"
#include "builder/plan.h"

/* Told now and then, also while nothing comes, of the bytes of compressed layers that were read. */
typedef void sm_unpack_progress_fn(
    void *arg, size_t layer, size_t layers, uint64_t done, uint64_t total);

/* Into the empty file fd; sm_parsers_finish is what is left to do. */
int sm_unpack(struct sm_parsers *parsers, struct sm_source *source, const struct sm_plan *plan,
    int fd, const struct sm_rootfs_limits *limits, sm_unpack_progress_fn *progress, void *arg,
    sm_error *err);

#endif
