/* Files of the store, written whole or not at all, read back with suspicion. See store_files.h. */
#include "image/store_files.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "image/json.h"
#include "util/error.h"
#include "util/file.h"
#include "util/lock.h"

enum { LOCK_POLL_MS = 5 };

/* ---- names ----------------------------------------------------------------------------------- */

void sm_store_image_name(const char *digest, char name[SM_STORE_NAME_MAX])
{
    snprintf(name, SM_STORE_NAME_MAX, "images/sha256/%s.json", digest + 7);
}

void sm_store_blob_name(const char *digest, char name[SM_STORE_NAME_MAX])
{
    snprintf(name, SM_STORE_NAME_MAX, "blobs/sha256/%s", digest + 7);
}

void sm_store_rootfs_name(const char *chain_id, char name[SM_STORE_NAME_MAX])
{
    snprintf(name, SM_STORE_NAME_MAX, "rootfs/sha256-%s.v%d" SM_ROOTFS_SUFFIX, chain_id + 7,
        SM_ROOTFS_FORMAT);
}

/* ---- writing, reading, locking --------------------------------------------------------------- */

int sm_store_make_parents(const struct sm_imgstore *store, const char *name, sm_error *err)
{
    char path[SM_STORE_NAME_MAX];
    if (snprintf(path, sizeof(path), "%s", name) >= (int)sizeof(path))
        return sm_error_set(err, SM_EINVAL, "the name %.100s... is too long for the store", name);
    char *slash = strrchr(path, '/');
    if (!slash)
        return 0;
    *slash = '\0';
    return sm_make_dirs(store->fd, path) == 0
               ? 0
               : sm_error_errno(err, errno, "cannot make the directory %s in the store", path);
}

/* A file of tmp/ that is to become `name`. */
static int open_tmp(
    struct sm_imgstore *store, const char *name, struct sm_partial *file, sm_error *err)
{
    uint64_t random;
    char tmp[64];
    *file = SM_PARTIAL_NONE;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return sm_error_errno(err, errno, "cannot get random bytes");
    snprintf(tmp, sizeof(tmp), "tmp/%016" PRIx64 ".partial", random);
    int rc = sm_store_make_parents(store, tmp, err);
    if (rc == 0)
        rc = sm_partial_open(
            file, store->fd, name, &(struct sm_partial_options){.partial = tmp}, err);
    return rc ? sm_error_prefix(err, rc, "the image store %s", store->path) : 0;
}

int sm_store_open_tmp(struct sm_imgstore *store, struct sm_partial *file, sm_error *err)
{
    return open_tmp(store, "tmp/unnamed", file, err);
}

int sm_store_write(
    struct sm_imgstore *store, const char *name, const char *data, size_t size, sm_error *err)
{
    auto_partial file = SM_PARTIAL_NONE;
    int rc = sm_store_make_parents(store, name, err);
    if (rc == 0)
        rc = open_tmp(store, name, &file, err);
    if (rc)
        return rc;
    if (sm_write_all(file.fd, data, size) != 0)
        rc = sm_error_errno(err, errno, "cannot write %s", name);
    else
        rc = sm_partial_commit(&file, SM_PARTIAL_SYNC_ALL, err);
    return rc ? sm_error_prefix(err, rc, "the image store %s", store->path) : 0;
}

int sm_store_write_json(
    struct sm_imgstore *store, const char *name, const json_t *object, sm_error *err)
{
    auto_free char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    return text ? sm_store_write(store, name, text, strlen(text), err)
                : sm_error_set(err, SM_ENOMEM, "out of memory");
}

int sm_store_read_digest(
    struct sm_imgstore *store, const char *name, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    auto_free char *text = NULL;
    size_t size;
    int rc = sm_read_file_at(store->fd, name, SM_DIGEST_LEN + 1, &text, &size, err);
    if (rc)
        return rc;
    if (size == SM_DIGEST_LEN + 1)
        text[SM_DIGEST_LEN] = '\0';
    if (!sm_digest_valid(text))
        return sm_error_set(
            err, SM_ECORRUPT, "%s in the store %s is damaged, remove it", name, store->path);
    memcpy(digest, text, SM_DIGEST_LEN + 1);
    return 0;
}

int sm_store_write_digest(
    struct sm_imgstore *store, const char *name, const char *digest, sm_error *err)
{
    char text[SM_DIGEST_LEN + 2];
    snprintf(text, sizeof(text), "%s\n", digest);
    return sm_store_write(store, name, text, strlen(text), err);
}

int sm_store_flock(int fd, int operation, int timeout_ms, sm_error *err)
{
    int64_t deadline = sm_deadline(timeout_ms);
    int rc;
    while ((rc = sm_lock_try(fd, operation)) == SM_LOCK_TAKEN) {
        if (!sm_lock_again(deadline, LOCK_POLL_MS))
            return sm_error_set(err, SM_EBUSY, "the image is in use by somebody else");
    }
    return rc ? sm_error_errno(err, errno, "cannot lock a file of the store") : 0;
}
