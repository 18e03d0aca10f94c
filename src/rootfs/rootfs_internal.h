/* Inside of the root filesystem builder. */
#ifndef SM_ROOTFS_ROOTFS_INTERNAL_H
#define SM_ROOTFS_ROOTFS_INTERNAL_H

#include "rootfs/rootfs.h"
#include "rootfs/space.h"
#include "rootfs/tree.h"

struct sm_rootfs {
    struct sm_rootfs_limits limits;
    struct sm_space space;
    struct sm_tree tree;
    uint64_t tar_bytes;
    unsigned layers;
};

/* One change that a layer makes. */
struct sm_change {
    struct sm_change *next;
    struct sm_inode *inode; /* NULL: a hard link or a whiteout */
    char *link_to;          /* hard link: clean path, behind this structure */
    bool whiteout, opaque;  /* path is then what is hidden, or the directory */
    char path[];            /* clean */
};

/* The changes of a layer in the order of its archive. */
struct sm_changes {
    struct sm_change *first, **last;
    size_t count;
};

/* Reads a layer's archive: contents into space, the rest into *changes (to be freed even on
 * failure). */
int sm_layer_read(struct sm_rootfs *rootfs, sm_rootfs_read_fn *read, void *arg,
    struct sm_changes *changes, sm_error *err);
/* Applies and frees the changes. */
int sm_layer_apply(struct sm_tree *tree, struct sm_changes *changes, sm_error *err);
void sm_changes_free(struct sm_tree *tree, struct sm_changes *changes);

/* Writes the metadata. */
int sm_ext4_write(struct sm_rootfs *rootfs, const unsigned char id[32], sm_error *err);

#endif
