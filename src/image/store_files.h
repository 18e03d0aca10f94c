/*
 * The files of the store: what they are called, and how they are written, read and locked. For
 * those who keep something in it; docs/store.md describes them. All names are relative to the
 * store's directory.
 */
#ifndef SM_IMAGE_STORE_FILES_H
#define SM_IMAGE_STORE_FILES_H

#include <jansson.h>

#include "image/reference.h"
#include "image/store.h"
#include "util/file.h"

struct sm_imgstore {
    int fd;
    char *path;
};

#define SM_STORE_NAME_MAX 512

/* images/sha256/HEX.json */
void sm_store_image_name(const char *digest, char name[SM_STORE_NAME_MAX]);
/* blobs/sha256/HEX */
void sm_store_blob_name(const char *digest, char name[SM_STORE_NAME_MAX]);
/* rootfs/sha256-HEX.vFORMAT.ext4 of a chain ID. The number is that of the builder's format. */
#define SM_ROOTFS_FORMAT 2
#define SM_ROOTFS_SUFFIX ".ext4"
void sm_store_rootfs_name(const char *chain_id, char name[SM_STORE_NAME_MAX]);

/* Makes the directories above `name`. */
int sm_store_make_parents(const struct sm_imgstore *store, const char *name, sm_error *err);

/* Writes the file whole or not at all (temporary name, fsync, rename, fsync of its directory),
 * making directories: what is written next is on disk after it. */
int sm_store_write(
    struct sm_imgstore *store, const char *name, const char *data, size_t size, sm_error *err);

/* The same of an object; NULL: there was no memory for it. */
int sm_store_write_json(
    struct sm_imgstore *store, const char *name, const json_t *object, sm_error *err);

/* A file in tmp/, to be committed nowhere. */
int sm_store_open_tmp(struct sm_imgstore *store, struct sm_partial *file, sm_error *err);

/* A file that holds nothing but a digest and a newline. */
int sm_store_read_digest(
    struct sm_imgstore *store, const char *name, char digest[SM_DIGEST_LEN + 1], sm_error *err);
int sm_store_write_digest(
    struct sm_imgstore *store, const char *name, const char *digest, sm_error *err);

/* Takes the lock without waiting for longer than timeout_ms; negative: as long as its holder lives.
 * SM_EBUSY when it is held. */
int sm_store_flock(int fd, int operation, int timeout_ms, sm_error *err);

#endif
