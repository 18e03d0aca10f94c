/*
 * The image store: where images that are ready to run are kept, and how a reference becomes one.
 *
 * It looks up, lists and removes, and needs nothing but JSON and file calls (well below a millisecond for
 * what is in the store). What is not there yet is built by the program `supermachine-image` (ensure.h). The
 * layout of the directory and who locks what is in docs/store.md.
 *
 * Any number of threads and processes may use one store directory.
 */
#ifndef SM_IMAGE_STORE_H
#define SM_IMAGE_STORE_H

#include <supermachine.h>

struct sm_imgstore;

/* Opens (and creates, mode 0700) the store; dir NULL: $XDG_DATA_HOME/supermachine or
 * ~/.local/share/supermachine. */
char *sm_imgstore_default_dir(sm_error *err); /* malloc'ed; NULL: there is none */
int sm_imgstore_open(struct sm_imgstore **store, const char *dir, sm_error *err);
void sm_imgstore_close(struct sm_imgstore *store);
const char *sm_imgstore_path(const struct sm_imgstore *store);

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

/* Looks `reference` up (all forms of sm_image_open). platform NULL: the host's. SM_ENOTFOUND when
 * the store does not have it, or what it names has changed since it was built. */
int sm_imgstore_find(struct sm_imgstore *store, const char *reference, const char *platform,
    struct sm_image_info *info, sm_error *err);

/* One row of `image ls`: an image and the names that lead to it. */
struct sm_image_entry {
    struct sm_image_info info;
    char **names; /* NULL-terminated, may be empty */
};

struct sm_image_list {
    struct sm_image_entry *entries; /* newest first */
    size_t count;
};

int sm_imgstore_list(struct sm_imgstore *store, struct sm_image_list *list, sm_error *err);
void sm_image_list_clear(struct sm_image_list *list);

/* Removes the name, or, where the reference is a digest or was the last name, the image and what
 * only it needs. SM_EBUSY when something runs from it (a VM, an open sm_image). `removed` (may be
 * NULL) gets the digest when the image itself went, else NULL; the caller frees it. */
int sm_imgstore_remove(
    struct sm_imgstore *store, const char *reference, char **removed, sm_error *err);

/* Reads the whole root filesystem that `info` holds open. SM_ECORRUPT: it is damaged, and from now on made anew by
 * whoever wants to use it. */
int sm_imgstore_verify(struct sm_imgstore *store, const struct sm_image_info *info, sm_error *err);
/* The same of an image that the store has, of whatever platform: it is looked up, and neither built nor made anew first. */
int sm_imgstore_verify_named(struct sm_imgstore *store, const char *reference, sm_error *err);

/* Names and garbage, as the public functions of these names. */
int sm_imgstore_tag(
    struct sm_imgstore *store, const char *reference, const char *name, sm_error *err);
int sm_imgstore_prune(
    struct sm_imgstore *store, bool all, struct sm_prune_result *result, sm_error *err);
void sm_imgstore_usage(struct sm_imgstore *store, struct sm_store_usage *usage);

#endif
