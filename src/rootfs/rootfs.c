/*
 * The builder's steps. See rootfs.h.
 *
 * System calls: fsync.
 */
#include "rootfs/rootfs_internal.h"

#include <string.h>
#include <unistd.h>

#include "util/error.h"

static void give_back(void *arg, const struct sm_inode *inode)
{
    struct sm_rootfs *rootfs = arg;
    for (uint32_t i = 0; i < inode->extent_count; i++)
        sm_space_free(&rootfs->space, inode->extents[i].phys, inode->extents[i].count);
}

int sm_rootfs_new(
    int fd, const struct sm_rootfs_limits *limits, struct sm_rootfs **out, sm_error *err)
{
    struct sm_rootfs *rootfs = calloc(1, sizeof(*rootfs));
    if (!rootfs)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    rootfs->space.fd = -1;
    if (limits)
        rootfs->limits = *limits;
    if (!rootfs->limits.bytes)
        rootfs->limits.bytes = SM_ROOTFS_MAX_BYTES;
    if (!rootfs->limits.files)
        rootfs->limits.files = SM_ROOTFS_MAX_FILES;
    if (!rootfs->limits.layers)
        rootfs->limits.layers = SM_ROOTFS_MAX_LAYERS;
    int rc = sm_space_init(&rootfs->space, fd, rootfs->limits.bytes, err);
    if (rc == 0)
        rc = sm_tree_init(&rootfs->tree, rootfs->limits.files, give_back, rootfs, err);
    if (rc) {
        sm_rootfs_free(rootfs);
        return rc;
    }
    *out = rootfs;
    return 0;
}

void sm_rootfs_free(struct sm_rootfs *rootfs)
{
    if (!rootfs)
        return;
    rootfs->tree.gone = NULL;
    sm_tree_clear(&rootfs->tree);
    sm_space_clear(&rootfs->space);
    free(rootfs);
}

int sm_rootfs_add_layer(struct sm_rootfs *rootfs, sm_rootfs_read_fn *read, void *arg, sm_error *err)
{
    if (++rootfs->layers > rootfs->limits.layers)
        return sm_error_set(
            err, SM_ELIMIT, "the image has more than %u layers", rootfs->limits.layers);
    struct sm_changes changes = {.last = &changes.first};
    int rc = sm_layer_read(rootfs, read, arg, &changes, err);
    if (rc == 0)
        rc = sm_layer_apply(&rootfs->tree, &changes, err);
    sm_changes_free(&rootfs->tree, &changes);
    return rc;
}

int sm_rootfs_finish(struct sm_rootfs *rootfs, const unsigned char id[32], sm_error *err)
{
    int rc = sm_space_flush(&rootfs->space, err);
    if (rc == 0)
        rc = sm_ext4_write(rootfs, id, err);
    if (rc == 0 && fsync(rootfs->space.fd) != 0)
        rc = sm_error_errno(err, errno, "cannot write the root filesystem");
    return rc;
}
