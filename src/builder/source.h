/*
 * Where the parts of an image are read from: a layout directory, an archive, a registry. A source
 * opens blobs by digest (or, in a docker archive, files by name); a blob is a slice of a file that
 * may still be growing. Nothing of it is trusted: who reads checks digest and size.
 */
#ifndef SM_BUILDER_SOURCE_H
#define SM_BUILDER_SOURCE_H

#include "image/index.h"
#include "util/cleanup.h"

struct sm_blob {
    int fd;
    uint64_t offset, size;
    /* Waits until more than `have` bytes are there and tells how many; SM_ETIMEOUT at the deadline,
     * without a sentence. NULL: all are there. */
    int (*wait)(
        struct sm_blob *blob, uint64_t have, int64_t deadline, uint64_t *available, sm_error *err);
    void *arg;    /* wait's, from malloc */
    bool checked; /* whoever provides it has the digest checked before the last byte can be read */
};

void sm_blob_close(struct sm_blob *blob);
static inline void sm_blob_cleanup(struct sm_blob *blob)
{
    sm_blob_close(blob);
}
#define auto_blob SM_CLEANUP(sm_blob_cleanup) struct sm_blob

/* Reads up to size bytes at a position of the blob, waiting for them; 0 at its end. */
ssize_t sm_blob_read(struct sm_blob *blob, uint64_t pos, void *buf, size_t size, sm_error *err);

typedef void sm_source_news_fn(void *arg, const struct sm_descriptor *d, uint64_t have);

struct sm_source {
    /* Opens a blob. d->digest may be "" where `name` leads to it. */
    int (*open)(struct sm_source *source, const struct sm_descriptor *d, const char *name,
        struct sm_blob *blob, sm_error *err);
    void (*free)(struct sm_source *source);
    /* Tells which blobs will be opened, in this order; NULL: it does not matter. */
    int (*prefetch)(struct sm_source *source, const struct sm_descriptor *const *blobs,
        size_t count, sm_error *err);
    /* Calls fn for each blob of which more is here than at the last call, out of any lock; NULL:
     * all blobs are here from the start. */
    void (*news)(struct sm_source *source, sm_source_news_fn *fn, void *arg);
    /* The image turned out to be damaged: whether another try may go better, since what the source
     * had kept of it is now thrown away. NULL: no. */
    bool (*discard)(struct sm_source *source);
};

void sm_source_free(struct sm_source *source);
SM_DEFINE_CLEANUP(struct sm_source *, sm_source_free)
#define auto_source SM_CLEANUP(sm_source_free_cleanup) struct sm_source *

/* Reads a whole blob of JSON and checks its size and, where there is one, its digest. `what` is for
 * errors. *data is NUL-terminated and malloc'ed. */
int sm_source_read(struct sm_source *source, const struct sm_descriptor *d, const char *name,
    const char *what, char **data, size_t *size, sm_error *err);

/* Hands a blob on piece by piece, and fails at its end when the digest is wrong. take's failures
 * end it. */
typedef int sm_source_take_fn(void *arg, const void *data, size_t size);
int sm_source_copy(struct sm_source *source, const struct sm_descriptor *d, sm_source_take_fn *take,
    void *arg, sm_error *err);

/* An OCI layout directory and its index.json. */
int sm_layout_open(const char *path, struct sm_source **source, json_t **index, sm_error *err);

#endif
