/*
 * Blobs on their way from a registry into the store.
 *
 * They are downloaded by a few threads, each one blob at a time, in the order in which they were
 * asked for. A blob grows under blobs/sha256/HEX.partial, on which an exclusive lock is held; what
 * is there from an earlier attempt is continued. It is summed while it comes, and gets its name
 * when the sum is right. A blob that another process has locked is being downloaded there: we wait
 * for it.
 *
 * Readers get the partial file at once and wait for the bytes. The very last byte is given out only
 * when the digest was found right, so nobody takes a blob for whole that is not.
 *
 * The functions are for one thread. Everything of a download but its digest moves under the queue's
 * mutex; the threads are joined when the queue is freed.
 */
#ifndef SM_BUILDER_DOWNLOADS_H
#define SM_BUILDER_DOWNLOADS_H

#include "builder/http.h"
#include "builder/source.h"
#include "image/store.h"

struct sm_downloads;

/* NULL: no memory. Store and session are the caller's and must be there as long as it; `name` is
 * the repository's, for errors. */
struct sm_downloads *sm_downloads_new(
    struct sm_imgstore *store, struct sm_http *http, const char *name);
/* Ends what is under way, by sm_http_stop. */
void sm_downloads_free(struct sm_downloads *downloads);

/* Adds the blob to the end of the queue unless it is in there. */
int sm_downloads_add(struct sm_downloads *downloads, const struct sm_descriptor *d, sm_error *err);
/* The same, and opens it, to be read while it comes. */
int sm_downloads_open(struct sm_downloads *downloads, const struct sm_descriptor *d,
    struct sm_blob *blob, sm_error *err);

/* Calls fn for each blob of which more is here than at the last call, out of the lock. */
void sm_downloads_news(struct sm_downloads *downloads, sm_source_news_fn *fn, void *arg);

#endif
