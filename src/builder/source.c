/*
 * Blobs and sources. See source.h.
 *
 * System calls: pread64.
 * System calls elsewhere: openat, open, fstat.
 */
#include "builder/source.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "builder/digest.h"
#include "image/json.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"

enum { COPY_SIZE = 256 << 10 };

void sm_blob_close(struct sm_blob *blob)
{
    sm_close(blob->fd);
    free(blob->arg);
    *blob = (struct sm_blob){.fd = -1};
}

ssize_t sm_blob_read(struct sm_blob *blob, uint64_t pos, void *buf, size_t size, sm_error *err)
{
    uint64_t available = blob->size;
    if (pos < blob->size && blob->wait) {
        int rc = blob->wait(blob, pos, SM_NO_DEADLINE, &available, err);
        if (rc)
            return rc;
    }
    if (pos >= available)
        return 0;
    size = (size_t)SM_MIN((uint64_t)size, available - pos);
    ssize_t n;
    do
        n = pread(blob->fd, buf, size, (off_t)(blob->offset + pos));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return sm_error_errno(err, errno, "cannot read a blob");
    if (n == 0)
        return sm_error_set(err, SM_ECORRUPT, "a blob became shorter while it was read");
    return n;
}

void sm_source_free(struct sm_source *source)
{
    if (source)
        source->free(source);
}

int sm_source_read(struct sm_source *source, const struct sm_descriptor *d, const char *name,
    const char *what, char **data, size_t *size, sm_error *err)
{
    if (d->size > SM_JSON_MAX_SIZE)
        return sm_error_set(err, SM_ELIMIT, "%s is larger than %u bytes", what, SM_JSON_MAX_SIZE);
    auto_blob blob = {.fd = -1};
    int rc = source->open(source, d, name, &blob, err);
    if (rc)
        return sm_error_prefix(err, rc, "%s", what);
    if (blob.size > SM_JSON_MAX_SIZE)
        return sm_error_set(err, SM_ELIMIT, "%s is larger than %u bytes", what, SM_JSON_MAX_SIZE);
    auto_free char *buf = malloc(blob.size + 1);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    uint64_t have = 0;
    while (have < blob.size) {
        ssize_t n = sm_blob_read(&blob, have, buf + have, blob.size - have, err);
        if (n <= 0)
            return n < 0 ? sm_error_prefix(err, (int)n, "%s", what)
                         : sm_error_set(err, SM_ECORRUPT, "%s is cut off", what);
        have += (uint64_t)n;
    }
    buf[have] = '\0';
    char digest[SM_DIGEST_LEN + 1];
    rc = sm_digest_of(buf, have, digest, err);
    if (rc == 0 && *d->digest && strcmp(digest, d->digest) != 0)
        rc = sm_error_set(err, SM_ECORRUPT, "%s has the digest %s and not %s: it is damaged", what,
            digest, d->digest);
    if (rc)
        return rc;
    *size = have;
    *data = sm_steal_ptr(&buf);
    return 0;
}

/* sm_source_copy of what is open; the sum is the caller's. */
static int copy_open_blob(struct sm_blob *blob, const struct sm_descriptor *d,
    struct sm_sha256 *sum, sm_source_take_fn *take, void *arg, sm_error *err)
{
    auto_free char *buf = malloc(COPY_SIZE);
    if (!buf || !sum)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    int rc = 0;
    for (uint64_t pos = 0; rc == 0 && pos < blob->size;) {
        ssize_t n = sm_blob_read(blob, pos, buf, COPY_SIZE, err);
        if (n <= 0)
            return n < 0 ? (int)n
                         : sm_error_set(err, SM_ECORRUPT, "the blob %s is cut off", d->digest);
        sm_sha256_update(sum, buf, (size_t)n);
        pos += (uint64_t)n;
        rc = take(arg, buf, (size_t)n);
    }
    return rc ? rc : sm_sha256_check(sum, d->digest, err);
}

int sm_source_copy(struct sm_source *source, const struct sm_descriptor *d, sm_source_take_fn *take,
    void *arg, sm_error *err)
{
    auto_blob blob = {.fd = -1};
    int rc = source->open(source, d, NULL, &blob, err);
    if (rc)
        return rc;
    struct sm_sha256 *sum = sm_sha256_new();
    rc = copy_open_blob(&blob, d, sum, take, arg, err);
    sm_sha256_free(sum);
    return rc;
}

/* ---- a layout directory ---------------------------------------------------------------------- */

struct layout {
    struct sm_source source;
    int dir;
};

static int open_in_layout(struct sm_source *source, const struct sm_descriptor *d, const char *name,
    struct sm_blob *blob, sm_error *err)
{
    struct layout *layout = (struct layout *)(void *)source;
    char path[SM_DIGEST_LEN + 16];
    snprintf(path, sizeof(path), "blobs/sha256/%s", d->digest + 7);
    auto_fd fd = openat(layout->dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return sm_error_errno(err, errno, "cannot open the blob %s", d->digest);
    if (!S_ISREG(st.st_mode))
        return sm_error_set(err, SM_ECORRUPT, "the blob %s is not a regular file", d->digest);
    if ((uint64_t)st.st_size != d->size)
        return sm_error_set(err, SM_ECORRUPT,
            "the blob %s has %lld bytes and not %llu: it is damaged", d->digest,
            (long long)st.st_size, (unsigned long long)d->size);
    *blob = (struct sm_blob){.fd = sm_steal_fd(&fd), .size = d->size};
    return 0;
}

static void free_layout(struct sm_source *source)
{
    struct layout *layout = (struct layout *)(void *)source;
    sm_close(layout->dir);
    free(layout);
}

int sm_layout_open(const char *path, struct sm_source **source, json_t **index, sm_error *err)
{
    auto_fd dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return sm_error_errno(err, errno, "cannot open the OCI layout %s", path);
    auto_json *root = NULL;
    int rc = sm_json_load_at(dir, "index.json", &root, err);
    if (rc)
        return sm_error_prefix(err, rc, "OCI layout %s", path);
    struct layout *layout = calloc(1, sizeof(*layout));
    if (!layout)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    layout->source = (struct sm_source){.open = open_in_layout, .free = free_layout};
    layout->dir = sm_steal_fd(&dir);
    *source = &layout->source;
    *index = sm_steal_ptr(&root);
    return 0;
}
