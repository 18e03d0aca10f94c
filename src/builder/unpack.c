/*
 * Two threads: one reads blobs, sums what it reads and decompresses; the caller's sums what comes
 * out (the diffID) and applies the tar. Between them is a ring of a few buffers, so memory is
 * bounded and the two kinds of work overlap, across the boundaries of layers too.
 *
 * The reading thread owns `fill`, the caller `drain`; both move under the mutex. A buffer belongs
 * to whoever is at it. The thread is joined before sm_unpack returns, whichever side fails first.
 */
#include "builder/unpack.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "builder/digest.h"
#include "builder/inflate.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/thread.h"

enum {
    PROGRESS_MS = 100,
    SLOTS = 16,
    SLOT_SIZE = 256 << 10,
};

struct slot {
    size_t size;
    bool last; /* of its layer */
    char data[SLOT_SIZE];
};

struct pipeline {
    struct sm_source *source;
    const struct sm_plan *plan;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned filled, drained; /* slots, counted up for ever */
    bool stop;                /* the caller takes no more */
    int rc;                   /* the thread failed, and why */
    sm_error why;
    _Atomic uint64_t done; /* compressed bytes read */
    _Atomic uint64_t total;
    sm_unpack_progress_fn *progress; /* the caller's thread only, as told_ms */
    void *arg;
    int64_t told_ms;
    struct slot *slots;
};

/* ---- the reading thread ---------------------------------------------------------------------- */

/* One layer on its way into slots. */
struct layer_reader {
    struct pipeline *p;
    bool is_file;      /* of which nobody knew the size */
    struct slot *slot; /* being filled, with so many bytes; NULL: none is */
    size_t have;
};

/* Waits for a free slot; NULL when the caller has stopped. */
static struct slot *begin_slot(struct pipeline *p)
{
    pthread_mutex_lock(&p->lock);
    while (p->filled - p->drained == SLOTS && !p->stop)
        pthread_cond_wait(&p->changed, &p->lock);
    struct slot *slot = p->stop ? NULL : &p->slots[p->filled % SLOTS];
    pthread_mutex_unlock(&p->lock);
    return slot;
}

static void end_slot(struct pipeline *p, struct slot *slot, size_t size, bool last)
{
    pthread_mutex_lock(&p->lock);
    slot->size = size;
    slot->last = last;
    p->filled++;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static void opened(void *arg, uint64_t size)
{
    struct layer_reader *r = arg;
    if (r->is_file)
        r->p->total += size;
}

static void was_read(void *arg, size_t size)
{
    struct layer_reader *r = arg;
    r->p->done += size;
}

static int take(void *arg, const void *data, size_t size, sm_error *err)
{
    struct layer_reader *r = arg;
    for (const char *from = data; size > 0;) {
        if (!r->slot && !(r->slot = begin_slot(r->p)))
            return -SM_ECANCELLED;
        size_t n = SM_MIN(size, SLOT_SIZE - r->have);
        memcpy(r->slot->data + r->have, from, n);
        r->have += n;
        from += n;
        size -= n;
        if (r->have < SLOT_SIZE)
            continue;
        end_slot(r->p, r->slot, r->have, false);
        r->slot = NULL;
        r->have = 0;
    }
    return 0;
}

/* The caller learns of the layer's end only when its digest was found right. */
static int read_layer(struct pipeline *p, const struct sm_layer *layer)
{
    static const struct sm_inflate_ops ops = {.opened = opened, .read = was_read, .take = take};
    struct layer_reader r = {.p = p, .is_file = layer->name != NULL};
    int rc = sm_inflate(p->source, layer, &ops, &r, &p->why);
    if (rc)
        return rc;
    if (!r.slot && !(r.slot = begin_slot(p)))
        return -SM_ECANCELLED;
    end_slot(p, r.slot, r.have, true);
    return 0;
}

static void read_layers(void *arg)
{
    struct pipeline *p = arg;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < p->plan->layer_count; i++) {
        rc = read_layer(p, &p->plan->layers[i]);
        if (rc && rc != -SM_ECANCELLED)
            sm_error_prefix(&p->why, rc, "layer %zu of %zu", i + 1, p->plan->layer_count);
    }
    pthread_mutex_lock(&p->lock);
    p->rc = rc;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

/* ---- the caller's thread --------------------------------------------------------------------- */

struct layer_writer {
    struct pipeline *p;
    size_t layer;
    struct sm_sha256 *sum; /* of what came out */
    bool holds, ended;     /* a slot is ours, and was the last one */
};

static void tell(struct layer_writer *w, bool now)
{
    struct pipeline *p = w->p;
    int64_t ms = sm_now_ms();
    if (!now && ms - p->told_ms < PROGRESS_MS)
        return;
    p->told_ms = ms;
    p->progress(p->arg, w->layer, p->plan->layer_count, p->done, p->total);
}

/* Waits until there is a slot to take or there will be none, with the lock held. */
static void wait_for_slot(struct layer_writer *w)
{
    struct pipeline *p = w->p;
    while (p->filled == p->drained && p->rc == 0) {
        if (sm_cond_wait_until(&p->changed, &p->lock, sm_deadline(PROGRESS_MS)))
            continue;
        pthread_mutex_unlock(&p->lock);
        tell(w, false);
        pthread_mutex_lock(&p->lock);
    }
}

static ssize_t take_slot(void *arg, const void **data, sm_error *err)
{
    struct layer_writer *w = arg;
    struct pipeline *p = w->p;
    if (w->ended && !w->holds)
        return 0;
    pthread_mutex_lock(&p->lock);
    if (w->holds) {
        p->drained++;
        w->holds = false;
        pthread_cond_broadcast(&p->changed);
    }
    if (w->ended) {
        pthread_mutex_unlock(&p->lock);
        return 0;
    }
    wait_for_slot(w);
    int rc = p->filled == p->drained ? p->rc : 0;
    struct slot *slot = &p->slots[p->drained % SLOTS];
    pthread_mutex_unlock(&p->lock);
    if (rc) {
        if (err)
            *err = p->why;
        return rc;
    }
    w->holds = true;
    w->ended = slot->last;
    sm_sha256_update(w->sum, slot->data, slot->size);
    tell(w, false);
    *data = slot->data;
    if (slot->size == 0) /* an end that holds nothing */
        return take_slot(arg, data, err);
    return (ssize_t)slot->size;
}

static int write_layer(struct layer_writer *w, struct sm_rootfs *rootfs, sm_error *err)
{
    const struct sm_plan *plan = w->p->plan;
    const struct sm_layer *layer = &plan->layers[w->layer];
    w->sum = sm_sha256_new();
    if (!w->sum)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    tell(w, true);
    int rc = sm_rootfs_add_layer(rootfs, take_slot, w, err);
    char digest[SM_DIGEST_LEN + 1];
    sm_sha256_finish(w->sum, digest);
    sm_sha256_free(w->sum);
    if (rc) {
        /* A failure of the reader has its layer's number already. */
        return w->p->rc == rc
                   ? rc
                   : sm_error_prefix(err, rc, "layer %zu of %zu", w->layer + 1, plan->layer_count);
    }
    if (strcmp(digest, layer->diff_id) == 0)
        return 0;
    /* They sum what they read and write other zeros behind its end. */
    bool chunked = strstr(layer->blob.media_type, "zstd") != NULL;
    return sm_error_set(err, SM_ECORRUPT,
        "layer %zu of %zu unpacks to %s, but the image's config says %s%s", w->layer + 1,
        plan->layer_count, digest, layer->diff_id,
        chunked ? "; podman and skopeo write such layers as zstd:chunked: push it as gzip or zstd"
                : "");
}

int sm_unpack(struct sm_source *source, const struct sm_plan *plan, struct sm_rootfs *rootfs,
    sm_unpack_progress_fn *progress, void *arg, sm_error *err)
{
    struct pipeline p = {.source = source, .plan = plan, .progress = progress, .arg = arg};
    for (size_t i = 0; i < plan->layer_count; i++)
        p.total += plan->layers[i].blob.size;
    p.slots = reallocarray(NULL, SLOTS, sizeof(*p.slots));
    if (!p.slots)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    pthread_mutex_init(&p.lock, NULL);
    sm_cond_init(&p.changed);
    struct sm_thread thread = {0};
    int rc = sm_thread_start(&thread, "layers", read_layers, &p, 0, err);
    if (rc == 0) {
        for (size_t i = 0; rc == 0 && i < plan->layer_count; i++) {
            struct layer_writer w = {.p = &p, .layer = i};
            rc = write_layer(&w, rootfs, err);
            if (rc == 0 && i + 1 == plan->layer_count)
                tell(&w, true);
        }
        pthread_mutex_lock(&p.lock);
        p.stop = true;
        pthread_cond_broadcast(&p.changed);
        pthread_mutex_unlock(&p.lock);
        sm_thread_join(&thread);
    }
    pthread_cond_destroy(&p.changed);
    pthread_mutex_destroy(&p.lock);
    free(p.slots);
    return rc;
}
