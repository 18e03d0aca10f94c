/*
 * Layers -> one read-only ext4 image file, without root and without touching the host's file
 * system.
 *
 * Layers are given bottom-up, each as the bytes of its tar archive, and each is read exactly once:
 * file contents go straight to blocks of the image (space.h), names and inodes to a tree in memory
 * (tree.h). When a layer's tar has ended, its changes are applied to the tree, whiteouts first, so
 * that their place in the tar does not matter. When all layers are there, the file system's
 * metadata is written around the contents (ext4.c).
 *
 * The same layers give the same bytes. One thread at a time per builder.
 */
#ifndef SM_ROOTFS_ROOTFS_H
#define SM_ROOTFS_ROOTFS_H

#include <supermachine.h>

#include "util/cleanup.h"

struct sm_rootfs;

/* 0 fields mean the defaults. */
struct sm_rootfs_limits {
    uint64_t bytes; /* size of the image; and of all tar archives, twice as much */
    size_t files;   /* names */
    unsigned layers;
};

#define SM_ROOTFS_MAX_BYTES  (64ull << 30)
#define SM_ROOTFS_MAX_FILES  1000000
#define SM_ROOTFS_MAX_LAYERS 1000

/* `fd` is the empty image file, open for reading and writing; it is borrowed. No path is opened. */
int sm_rootfs_new(
    int fd, const struct sm_rootfs_limits *limits, struct sm_rootfs **rootfs, sm_error *err);
void sm_rootfs_free(struct sm_rootfs *rootfs);
SM_DEFINE_CLEANUP(struct sm_rootfs *, sm_rootfs_free)
#define auto_rootfs SM_CLEANUP(sm_rootfs_free_cleanup) struct sm_rootfs *

/* Gives the next bytes of a tar archive (valid until the next call): their number, 0 at the end, or
 * a negative code with *err filled. */
typedef ssize_t sm_rootfs_read_fn(void *arg, const void **data, sm_error *err);

/* Applies the next layer. Reads to the very end of the archive. */
int sm_rootfs_add_layer(
    struct sm_rootfs *rootfs, sm_rootfs_read_fn *read, void *arg, sm_error *err);

/* Writes the file system around the contents and makes all durable. `id` names the contents: the
 * file system's UUID and hash seed are taken from it. */
int sm_rootfs_finish(struct sm_rootfs *rootfs, const unsigned char id[32], sm_error *err);

#endif
