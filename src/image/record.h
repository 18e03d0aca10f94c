/*
 * An image of the store: the record that says what it is, and its root filesystem, locked while it
 * is used. See docs/store.md, images/ and rootfs/.
 */
#ifndef SM_IMAGE_RECORD_H
#define SM_IMAGE_RECORD_H

#include "image/reference.h"
#include "image/store.h"

/* An image of the store. The file at rootfs_path is complete, and as long as rootfs_fd (or a dup of
 * it) stays open it carries a shared lock that keeps `rm` and `prune` from removing it: whoever
 * runs a VM from it keeps the descriptor. */
struct sm_image_info {
    /* of the manifest, "sha256:<hex>"; of the config where an archive has no manifest */
    char *digest;
    char *platform;    /* "linux/amd64" or "linux/arm64/v8" */
    char *config;      /* OCI image config, JSON text: a valid object of bounded size and depth */
    char *source;      /* the reference it was built from, local paths made absolute */
    char *rootfs_path; /* ext4 file, read-only, size a multiple of 2 MiB */
    uint64_t rootfs_size; /* its length; it is sparse, the disk holds less */
    int64_t created;      /* when it came into the store, seconds since 1970 */
    int rootfs_fd;        /* O_RDONLY | O_CLOEXEC; -1 in listings */
};

/* Frees what the structure holds (not the structure), closes rootfs_fd. */
void sm_image_info_clear(struct sm_image_info *info);

int sm_store_put_image(struct sm_imgstore *store, const struct sm_image_info *info, sm_error *err);
/* platform NULL: any. Opens and locks the root filesystem when `lock`, and glances at its seal. */
int sm_store_get_image(struct sm_imgstore *store, const char *digest,
    const struct sm_platform *platform, bool lock, struct sm_image_info *info, sm_error *err);

/* Opens the root filesystem and takes the shared lock that keeps it. A file that is unlinked
 * between the two is as good as never there. */
int sm_store_hold_rootfs(struct sm_image_info *info, sm_error *err);

#endif
