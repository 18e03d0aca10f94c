/* Blobs of the store, one writer at a time. See blobs.h. */
#include "builder/blobs.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "image/store_files.h"
#include "util/error.h"

int sm_store_open_blob(struct sm_imgstore *store, const struct sm_descriptor *d)
{
    char name[SM_STORE_NAME_MAX];
    struct stat st;
    sm_store_blob_name(d->digest, name);
    auto_fd fd = openat(store->fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || (uint64_t)st.st_size != d->size)
        return -1;
    return sm_steal_fd(&fd);
}

int sm_store_claim_blob(struct sm_imgstore *store, const struct sm_descriptor *d, int wait_ms,
    struct sm_partial *file, int *fd, sm_error *err)
{
    char name[SM_STORE_NAME_MAX];
    sm_store_blob_name(d->digest, name);
    *file = SM_PARTIAL_NONE;
    *fd = sm_store_open_blob(store, d);
    if (*fd >= 0)
        return 0;
    int rc = sm_partial_open(file, store->fd, name,
        &(struct sm_partial_options){.wait_ms = wait_ms, .resume = true}, err);
    if (rc)
        return sm_error_prefix(err, rc, "the image store %s", store->path);
    /* Whoever was waited for may have finished it. */
    *fd = sm_store_open_blob(store, d);
    if (*fd >= 0)
        sm_partial_close(file);
    return 0;
}

int sm_store_hold_blobs(struct sm_imgstore *store, int *fd, sm_error *err)
{
    int rc = sm_store_make_parents(store, "blobs/sha256/", err);
    if (rc)
        return rc;
    auto_fd dir = openat(store->fd, "blobs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return sm_error_errno(err, errno, "cannot open the blobs of the store %s", store->path);
    rc = sm_store_flock(dir, LOCK_SH, -1, err); /* of a prune, which waits for nobody */
    if (rc == 0)
        *fd = sm_steal_fd(&dir);
    return rc;
}
