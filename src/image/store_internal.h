/* Inside of the store: the files that both halves (look-up, building) read and write. docs/store.md
 * describes them. All names are relative to the store's directory. */
#ifndef SM_IMAGE_STORE_INTERNAL_H
#define SM_IMAGE_STORE_INTERNAL_H

#include "image/index.h"
#include "image/store.h"
#include "util/file.h"

struct sm_imgstore {
    int fd;
    char *path;
};

/* What of a local archive decides whether it is still the file that was read. */
struct sm_file_stamp {
    uint64_t dev, ino, size;
    int64_t mtime_ns, ctime_ns;
};

#define SM_STORE_NAME_MAX 512

/* Writes the file whole or not at all (temporary name, fsync, rename, fsync of its directory), making directories: what is
 * written next is on disk after it. */
int sm_store_write(
    struct sm_imgstore *store, const char *name, const char *data, size_t size, sm_error *err);

/* A file in tmp/, to be committed nowhere. */
int sm_store_open_tmp(struct sm_imgstore *store, struct sm_partial *file, sm_error *err);

/* images/sha256/HEX.json */
void sm_store_image_name(const char *digest, char name[SM_STORE_NAME_MAX]);
int sm_store_put_image(struct sm_imgstore *store, const struct sm_image_info *info, sm_error *err);
/* platform NULL: any. Opens and locks the root filesystem when `lock`, and glances at its seal. */
int sm_store_get_image(struct sm_imgstore *store, const char *digest,
    const struct sm_platform *platform, bool lock, struct sm_image_info *info, sm_error *err);

/* Opens the root filesystem and takes the shared lock that keeps it. A file that is unlinked between the two is as good
 * as never there. */
int sm_store_hold_rootfs(struct sm_image_info *info, sm_error *err);

/* Which manifest an index means for a platform (indexes/...). */
int sm_store_put_choice(struct sm_imgstore *store, const char *index_digest,
    const struct sm_platform *platform, const char *digest, sm_error *err);
int sm_store_get_choice(struct sm_imgstore *store, const char *index_digest,
    const struct sm_platform *platform, char digest[SM_DIGEST_LEN + 1], sm_error *err);

/* What a local archive and a name in it led to (archives/...). `path` is absolute. */
int sm_store_stamp(const char *path, struct sm_file_stamp *fp, sm_error *err);
int sm_store_put_archive(struct sm_imgstore *store, const struct sm_reference *ref,
    const char *path, const struct sm_platform *platform, const struct sm_file_stamp *fp,
    const char *digest, sm_error *err);

int sm_store_get_archive(struct sm_imgstore *store, const struct sm_reference *ref,
    const char *path, const struct sm_platform *platform, char digest[SM_DIGEST_LEN + 1],
    sm_error *err);

/* What a registry's name points to (refs/HOST/REPOSITORY/:TAG): a manifest's or an index's digest. */
int sm_store_tag_name(const struct sm_reference *ref, char name[SM_STORE_NAME_MAX], sm_error *err);
int sm_store_put_tag(
    struct sm_imgstore *store, const struct sm_reference *ref, const char *digest, sm_error *err);
int sm_store_get_tag(
    struct sm_imgstore *store, const char *name, char digest[SM_DIGEST_LEN + 1], sm_error *err);

/* Calls fn for every name; stops when it returns non-zero, and returns that. `full` is as the user
 * would write it ("docker.io/library/alpine:latest"), `file` is its file in the store. */
typedef int sm_store_tag_fn(void *arg, const char *full, const char *file, const char *digest);
int sm_store_each_tag(struct sm_imgstore *store, sm_store_tag_fn *fn, void *arg, sm_error *err);

/* From reference to image; `to_run`: it must fit the platform, and is locked (see store.h). */
int sm_store_resolve(struct sm_imgstore *store, const struct sm_reference *ref,
    const struct sm_platform *platform, bool to_run, struct sm_image_info *info, sm_error *err);

/* blobs/sha256/HEX */
void sm_store_blob_name(const char *digest, char name[SM_STORE_NAME_MAX]);
/* The blob, if it is there and has its size; -1 otherwise. */
int sm_store_open_blob(struct sm_imgstore *store, const struct sm_descriptor *d);
/* The blob where it is there: *fd, and nothing to do. Else its partial file, in which an earlier writer may have left
 * something; SM_EBUSY when somebody else has held it for wait_ms. *file must be closed in both cases. */
int sm_store_claim_blob(struct sm_imgstore *store, const struct sm_descriptor *d, int wait_ms,
    struct sm_partial *file, int *fd, sm_error *err);
/* Makes blobs/ and takes the shared lock on it that keeps `prune` away from blobs that no image leads to yet. The
 * lock goes with the descriptor. */
int sm_store_hold_blobs(struct sm_imgstore *store, int *fd, sm_error *err);

/* rootfs/sha256-HEX.vFORMAT.ext4 of a chain ID. The number is that of the builder's format. */
#define SM_ROOTFS_FORMAT 2
#define SM_ROOTFS_SUFFIX ".ext4"
void sm_store_rootfs_name(const char *chain_id, char name[SM_STORE_NAME_MAX]);

/* Takes the lock without waiting for longer than timeout_ms; negative: as long as its holder lives. SM_EBUSY when it is held. */
int sm_store_flock(int fd, int operation, int timeout_ms, sm_error *err);

#endif
