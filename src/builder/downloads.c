/* A queue and its threads. See downloads.h. */
#include "builder/downloads.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "builder/blobs.h"
#include "builder/digest.h"
#include "image/store_files.h"
#include "util/bytes.h"
#include "util/error.h"
#include "util/file.h"
#include "util/thread.h"

enum {
    THREADS = 3,
    LOCK_WAIT_MS = 200,
    HASH_BUFFER = 256 << 10,
    NEWS = 16,         /* told of at a time */
    SHORT_ANSWERS = 3, /* answers in a row that end early without a byte of progress */
};

enum state { QUEUED, RUNNING, DONE, FAILED };

struct download {
    struct download *next;
    struct sm_descriptor d;
    enum state state;
    int fd;              /* of the partial file, once RUNNING */
    int read_fd;         /* the same, or the finished file's, for readers */
    uint64_t have, told; /* told: by news() */
    struct sm_sha256 *sum;
    int rc;
    sm_error why;
};

struct sm_downloads {
    struct sm_imgstore *store;
    struct sm_http *http;
    const char *name;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct download *first;
    struct sm_thread threads[THREADS];
    unsigned thread_count;
    _Atomic bool stop;
};

struct sink {
    struct sm_downloads *q;
    struct download *dl;
};

/* ---- one download ---------------------------------------------------------------------------- */

static int take_bytes(void *arg, const void *data, size_t size, sm_error *err)
{
    struct sink *s = arg;
    struct download *dl = s->dl;
    if (size > dl->d.size - dl->have)
        return sm_error_set(err, SM_ECORRUPT,
            "the blob %s is longer than the %llu bytes it should have", dl->d.digest,
            (unsigned long long)dl->d.size);
    if (sm_write_at(dl->fd, data, size, dl->have) != 0)
        return sm_error_errno(err, errno, "cannot write into the store %s", s->q->store->path);
    sm_sha256_update(dl->sum, data, size);
    pthread_mutex_lock(&s->q->lock);
    dl->have += size;
    pthread_cond_broadcast(&s->q->changed);
    pthread_mutex_unlock(&s->q->lock);
    return 0;
}

/* Waits for who has the blob's partial file; see sm_store_claim_blob. */
static int claim(
    struct sm_downloads *q, struct download *dl, struct sm_partial *file, int *fd, sm_error *err)
{
    while (!q->stop) {
        int rc = sm_store_claim_blob(q->store, &dl->d, LOCK_WAIT_MS, file, fd, err);
        if (rc != -SM_EBUSY)
            return rc;
    }
    return sm_error_set(err, SM_ECANCELLED, "the download was cancelled");
}

/* Sums what an earlier attempt has left: *have bytes. */
static int sum_rest(struct download *dl, int fd, uint64_t *have, sm_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return sm_error_errno(err, errno, "cannot read a blob of the store");
    *have = (uint64_t)st.st_size;
    if (*have > dl->d.size) {
        *have = 0;
        if (ftruncate(fd, 0) != 0)
            return sm_error_errno(err, errno, "cannot write a blob of the store");
    }
    auto_free char *buf = malloc(HASH_BUFFER);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    for (uint64_t at = 0; at < *have;) {
        ssize_t n = sm_read_at(fd, buf, HASH_BUFFER, at);
        if (n <= 0)
            return sm_error_errno(err, n < 0 ? errno : EIO, "cannot read a blob of the store");
        sm_sha256_update(dl->sum, buf, (size_t)n);
        at += (uint64_t)n;
    }
    return 0;
}

static int fetch(struct sm_downloads *q, struct download *dl, sm_error *err)
{
    char path[SM_DIGEST_LEN + 16], what[SM_DIGEST_LEN + 320];
    struct sink sink = {q, dl};
    snprintf(path, sizeof(path), "blobs/%s", dl->d.digest);
    snprintf(what, sizeof(what), "the blob %.19s of %s", dl->d.digest, q->name);
    for (int tries = 0; dl->have < dl->d.size; tries++) {
        struct sm_http_get get = {
            .what = what, .path = path, .from = dl->have, .sink = take_bytes, .arg = &sink};
        uint64_t before = dl->have;
        int rc = sm_http_get(q->http, &get, err);
        if (rc)
            return rc;
        if (dl->have > before)
            tries = 0;
        else if (tries + 1 >= SHORT_ANSWERS)
            return sm_error_set(err, SM_ECORRUPT, "the blob %s ends after %llu of %llu bytes",
                dl->d.digest, (unsigned long long)dl->have, (unsigned long long)dl->d.size);
    }
    int rc = sm_sha256_check(dl->sum, dl->d.digest, err);
    return rc ? sm_error_prefix(err, rc, "%s", q->name) : 0;
}

/* Lets readers at the file, which has so much in it. */
static void give_out(
    struct sm_downloads *q, struct download *dl, int fd, int read_fd, uint64_t have)
{
    pthread_mutex_lock(&q->lock);
    dl->fd = fd;
    dl->read_fd = read_fd;
    dl->have = have;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

/* What broke off goes on later; what is wrong must not. */
static bool can_go_on(const struct download *dl, int rc)
{
    return dl->have > 0 && (rc == -SM_ENETWORK || rc == -SM_ECANCELLED);
}

static int download(struct sm_downloads *q, struct download *dl, sm_error *err)
{
    auto_partial file = SM_PARTIAL_NONE;
    auto_fd there = -1;
    int rc = claim(q, dl, &file, &there, err);
    uint64_t have = 0;
    if (rc == 0 && there < 0)
        rc = sum_rest(dl, file.fd, &have, err);
    if (rc)
        return rc;
    if (there >= 0) {
        give_out(q, dl, -1, sm_steal_fd(&there), dl->d.size);
        return 0;
    }
    /* Readers have it for longer. They get no descriptor that writes: what is read has been summed
     * as it came, and the sum is what gives the blob its name. */
    auto_fd read_fd = openat(file.dir, file.partial, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int fd = read_fd < 0 ? -1 : fcntl(file.fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return sm_error_errno(err, errno, "cannot open a blob");
    give_out(q, dl, fd, sm_steal_fd(&read_fd), have);
    rc = fetch(q, dl, err);
    if (rc == 0)
        rc = sm_partial_commit(&file, SM_PARTIAL_SYNC_FILE, err);
    if (rc && can_go_on(dl, rc))
        sm_partial_leave(&file);
    sm_partial_close(&file);
    flock(dl->fd, LOCK_UN);
    return rc;
}

static struct download *next_queued(struct sm_downloads *q)
{
    for (struct download *dl = q->first; dl && !q->stop; dl = dl->next)
        if (dl->state == QUEUED)
            return dl;
    return NULL;
}

static void run_downloads(void *arg)
{
    struct sm_downloads *q = arg;
    pthread_mutex_lock(&q->lock);
    while (!q->stop) {
        struct download *dl = next_queued(q);
        if (!dl) {
            pthread_cond_wait(&q->changed, &q->lock);
            continue;
        }
        dl->state = RUNNING; /* with fd -1 until there is a file */
        pthread_mutex_unlock(&q->lock);
        sm_error err = {0};
        int rc = download(q, dl, &err);
        pthread_mutex_lock(&q->lock);
        dl->rc = rc;
        dl->why = err;
        dl->state = rc ? FAILED : DONE;
        pthread_cond_broadcast(&q->changed);
    }
    pthread_mutex_unlock(&q->lock);
}

/* ---- the queue ------------------------------------------------------------------------------- */

static int start_thread(struct sm_downloads *q, sm_error *err)
{
    if (q->thread_count == THREADS)
        return 0;
    struct sm_thread *thread = &q->threads[q->thread_count];
    int rc = sm_thread_start(thread, "download", run_downloads, q, 0, err);
    if (rc && q->thread_count == 0)
        return rc;
    q->thread_count += rc == 0;
    return 0;
}

/* Adds the blob to the end of the queue unless it is in there. */
static int enqueue(
    struct sm_downloads *q, const struct sm_descriptor *d, struct download **out, sm_error *err)
{
    struct download **last = &q->first;
    while (*last && strcmp((*last)->d.digest, d->digest) != 0)
        last = &(*last)->next;
    *out = *last;
    if (*last)
        return (*last)->d.size == d->size
                   ? 0
                   : sm_error_set(err, SM_ECORRUPT, "the manifest tells two sizes of the blob %s",
                         d->digest);
    struct download *dl = calloc(1, sizeof(*dl));
    struct sm_sha256 *sum = dl ? sm_sha256_new() : NULL;
    if (!sum) {
        free(dl);
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    dl->d = *d;
    dl->fd = dl->read_fd = -1;
    dl->sum = sum;
    pthread_mutex_lock(&q->lock);
    *last = dl;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    *out = dl;
    return start_thread(q, err);
}

int sm_downloads_add(struct sm_downloads *q, const struct sm_descriptor *d, sm_error *err)
{
    struct download *dl;
    return enqueue(q, d, &dl, err);
}

void sm_downloads_news(struct sm_downloads *q, sm_source_news_fn *fn, void *arg)
{
    const struct download *found[NEWS];
    uint64_t have[NEWS];
    size_t n;
    do {
        n = 0;
        pthread_mutex_lock(&q->lock);
        for (struct download *dl = q->first; dl && n < NEWS; dl = dl->next) {
            if (dl->have == dl->told)
                continue;
            found[n] = dl;
            have[n++] = dl->told = dl->have;
        }
        pthread_mutex_unlock(&q->lock);
        for (size_t i = 0; i < n; i++)
            fn(arg, &found[i]->d, have[i]);
    } while (n == NEWS);
}

/* ---- reading --------------------------------------------------------------------------------- */

static int wait_for_bytes(
    struct sm_blob *blob, uint64_t have, int64_t deadline, uint64_t *available, sm_error *err)
{
    struct sink *s = blob->arg;
    struct download *dl = s->dl;
    pthread_mutex_lock(&s->q->lock);
    uint64_t there;
    while (true) {
        there = dl->state == DONE || dl->have == 0 ? dl->have : SM_MIN(dl->have, dl->d.size - 1);
        if (there > have || dl->state == DONE || dl->state == FAILED)
            break;
        if (!sm_cond_wait_until(&s->q->changed, &s->q->lock, deadline)) {
            pthread_mutex_unlock(&s->q->lock);
            return -SM_ETIMEOUT;
        }
    }
    int rc = there > have ? 0 : dl->rc;
    if (rc && err)
        *err = dl->why;
    pthread_mutex_unlock(&s->q->lock);
    *available = there;
    return rc;
}

/* Waits until there is a file to read, whatever is in it. */
static int wait_for_file(struct sm_downloads *q, struct download *dl, sm_error *err)
{
    pthread_mutex_lock(&q->lock);
    while (dl->read_fd < 0 && dl->state != FAILED)
        pthread_cond_wait(&q->changed, &q->lock);
    int rc = dl->read_fd < 0 ? dl->rc : 0;
    if (rc && err)
        *err = dl->why;
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int sm_downloads_open(
    struct sm_downloads *q, const struct sm_descriptor *d, struct sm_blob *blob, sm_error *err)
{
    struct download *dl;
    int rc = enqueue(q, d, &dl, err);
    if (rc == 0)
        rc = wait_for_file(q, dl, err);
    if (rc)
        return rc;
    struct sink *s = malloc(sizeof(*s));
    int fd = s ? fcntl(dl->read_fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (fd < 0) {
        free(s);
        return sm_error_errno(err, errno, "cannot open a blob");
    }
    *s = (struct sink){q, dl};
    *blob = (struct sm_blob){
        .fd = fd, .size = d->size, .wait = wait_for_bytes, .arg = s, .checked = true};
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------- */

struct sm_downloads *sm_downloads_new(
    struct sm_imgstore *store, struct sm_http *http, const char *name)
{
    struct sm_downloads *q = calloc(1, sizeof(*q));
    if (!q)
        return NULL;
    q->store = store;
    q->http = http;
    q->name = name;
    pthread_mutex_init(&q->lock, NULL);
    sm_cond_init(&q->changed);
    return q;
}

void sm_downloads_free(struct sm_downloads *q)
{
    if (!q)
        return;
    pthread_mutex_lock(&q->lock);
    q->stop = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
    sm_http_stop(q->http);
    for (unsigned i = 0; i < q->thread_count; i++)
        sm_thread_join(&q->threads[i]);
    while (q->first) {
        struct download *dl = q->first;
        q->first = dl->next;
        sm_close(dl->fd);
        sm_close(dl->read_fd);
        sm_sha256_free(dl->sum);
        free(dl);
    }
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->lock);
    free(q);
}
