/*
 * Blobs are downloaded by a few threads, each one blob at a time, in the order in which they will be
 * read. A blob grows under blobs/sha256/HEX.partial, on which an exclusive lock is held; what is there
 * from an earlier attempt is continued. It is summed while it comes, and gets its name when the sum
 * is right. A blob that another process has locked is being downloaded there: we wait for it.
 *
 * Readers get the partial file at once and wait for the bytes. The very last byte is given out only
 * when the digest was found right, so nobody takes a blob for whole that is not.
 *
 * Everything of a download but its digest moves under the registry's mutex; the threads are joined
 * when the source is freed.
 */
#include "builder/registry.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "builder/blobs.h"
#include "builder/credentials.h"
#include "builder/digest.h"
#include "builder/http.h"
#include "builder/http_body.h"
#include "image/json.h"
#include "image/store_files.h"
#include "util/bytes.h"
#include "util/error.h"
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
    int fd;              /* of the partial or the finished file, once RUNNING */
    uint64_t have, told; /* told: by news() */
    struct sm_sha256 *sum;
    int rc;
    sm_error why;
};

struct registry {
    struct sm_source source;
    struct sm_imgstore *store;
    int blobs; /* of sm_store_hold_blobs */
    struct sm_http *http;
    char *name; /* "docker.io/library/alpine" */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct download *downloads;
    struct sm_thread threads[THREADS];
    unsigned thread_count;
    _Atomic bool stop;
    char **kept; /* digests that came out of the store as they were */
    size_t kept_count;
};

struct sink {
    struct registry *r;
    struct download *dl;
};

/* ---- one download -------------------------------------------------------------------------------- */

static int take_bytes(void *arg, const void *data, size_t size, sm_error *err)
{
    struct sink *s = arg;
    struct download *dl = s->dl;
    if (size > dl->d.size - dl->have)
        return sm_error_set(err, SM_ECORRUPT,
            "the blob %s is longer than the %llu bytes it should have", dl->d.digest,
            (unsigned long long)dl->d.size);
    const char *p = data;
    for (size_t left = size; left > 0;) {
        ssize_t n = pwrite(dl->fd, p, left, (off_t)(dl->have + (size - left)));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sm_error_errno(err, errno, "cannot write into the store %s", s->r->store->path);
        p += n;
        left -= (size_t)n;
    }
    sm_sha256_update(dl->sum, data, size);
    pthread_mutex_lock(&s->r->lock);
    dl->have += size;
    pthread_cond_broadcast(&s->r->changed);
    pthread_mutex_unlock(&s->r->lock);
    return 0;
}

/* Waits for who has the blob's partial file; see sm_store_claim_blob. */
static int claim(
    struct registry *r, struct download *dl, struct sm_partial *file, int *fd, sm_error *err)
{
    while (!r->stop) {
        int rc = sm_store_claim_blob(r->store, &dl->d, LOCK_WAIT_MS, file, fd, err);
        if (rc != -SM_EBUSY)
            return rc;
    }
    return sm_error_set(err, SM_ECANCELLED, "the download was cancelled");
}

/* Sums what an earlier attempt has left. */
static int sum_rest(struct download *dl, int fd, sm_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return sm_error_errno(err, errno, "cannot read a blob of the store");
    uint64_t have = (uint64_t)st.st_size;
    if (have > dl->d.size) {
        have = 0;
        if (ftruncate(fd, 0) != 0)
            return sm_error_errno(err, errno, "cannot write a blob of the store");
    }
    auto_free char *buf = malloc(HASH_BUFFER);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    uint64_t at = 0;
    while (at < have) {
        ssize_t n = pread(fd, buf, HASH_BUFFER, (off_t)at);
        if (n <= 0)
            return sm_error_errno(err, n < 0 ? errno : EIO, "cannot read a blob of the store");
        sm_sha256_update(dl->sum, buf, (size_t)n);
        at += (uint64_t)n;
    }
    dl->have = have;
    return 0;
}

static int fetch(struct registry *r, struct download *dl, sm_error *err)
{
    char path[SM_DIGEST_LEN + 16], what[SM_DIGEST_LEN + 320];
    struct sink sink = {r, dl};
    snprintf(path, sizeof(path), "blobs/%s", dl->d.digest);
    snprintf(what, sizeof(what), "the blob %.19s of %s", dl->d.digest, r->name);
    for (int tries = 0; dl->have < dl->d.size; tries++) {
        struct sm_http_get get = {
            .what = what, .path = path, .from = dl->have, .sink = take_bytes, .arg = &sink};
        uint64_t before = dl->have;
        int rc = sm_http_get(r->http, &get, err);
        if (rc)
            return rc;
        if (dl->have > before)
            tries = 0;
        else if (tries + 1 >= SHORT_ANSWERS)
            return sm_error_set(err, SM_ECORRUPT, "the blob %s ends after %llu of %llu bytes",
                dl->d.digest, (unsigned long long)dl->have, (unsigned long long)dl->d.size);
    }
    int rc = sm_sha256_check(dl->sum, dl->d.digest, err);
    return rc ? sm_error_prefix(err, rc, "%s", r->name) : 0;
}

static void set_state(struct registry *r, struct download *dl, enum state state)
{
    pthread_mutex_lock(&r->lock);
    dl->state = state;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

/* What broke off goes on later; what is wrong must not. */
static bool can_go_on(const struct download *dl, int rc)
{
    return dl->have > 0 && (rc == -SM_ENETWORK || rc == -SM_ECANCELLED);
}

static int download(struct registry *r, struct download *dl, sm_error *err)
{
    auto_partial file = SM_PARTIAL_NONE;
    auto_fd there = -1;
    int rc = claim(r, dl, &file, &there, err);
    if (rc == 0 && there < 0)
        rc = sum_rest(dl, file.fd, err);
    if (rc)
        return rc;
    if (there >= 0) {
        dl->fd = sm_steal_fd(&there);
        dl->have = dl->d.size;
        return 0;
    }
    dl->fd = fcntl(file.fd, F_DUPFD_CLOEXEC, 3); /* readers have it for longer */
    if (dl->fd < 0)
        return sm_error_errno(err, errno, "cannot open a blob");
    set_state(r, dl, RUNNING);
    rc = fetch(r, dl, err);
    if (rc == 0)
        rc = sm_partial_commit(&file, SM_PARTIAL_SYNC_FILE, err);
    if (rc && can_go_on(dl, rc))
        sm_partial_leave(&file);
    sm_partial_close(&file);
    flock(dl->fd, LOCK_UN);
    return rc;
}

static struct download *next_queued(struct registry *r)
{
    for (struct download *dl = r->downloads; dl && !r->stop; dl = dl->next)
        if (dl->state == QUEUED)
            return dl;
    return NULL;
}

static void run_downloads(void *arg)
{
    struct registry *r = arg;
    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        struct download *dl = next_queued(r);
        if (!dl) {
            pthread_cond_wait(&r->changed, &r->lock);
            continue;
        }
        dl->state = RUNNING; /* with fd -1 until there is a file */
        pthread_mutex_unlock(&r->lock);
        sm_error err = {0};
        int rc = download(r, dl, &err);
        pthread_mutex_lock(&r->lock);
        dl->rc = rc;
        dl->why = err;
        dl->state = rc ? FAILED : DONE;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
}

/* ---- the queue ------------------------------------------------------------------------------------ */

static int start_thread(struct registry *r, sm_error *err)
{
    if (r->thread_count == THREADS)
        return 0;
    struct sm_thread *thread = &r->threads[r->thread_count];
    int rc = sm_thread_start(thread, "download", run_downloads, r, 0, err);
    if (rc && r->thread_count == 0)
        return rc;
    r->thread_count += rc == 0;
    return 0;
}

/* Adds the blob to the end of the queue unless it is in there. */
static int enqueue(
    struct registry *r, const struct sm_descriptor *d, struct download **out, sm_error *err)
{
    struct download **last = &r->downloads;
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
    dl->fd = -1;
    dl->sum = sum;
    pthread_mutex_lock(&r->lock);
    *last = dl;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    *out = dl;
    return start_thread(r, err);
}

static int prefetch(
    struct sm_source *source, const struct sm_descriptor *const *blobs, size_t count, sm_error *err)
{
    struct registry *r = (struct registry *)(void *)source;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct download *dl;
        auto_fd fd = sm_store_open_blob(r->store, blobs[i]);
        if (fd < 0)
            rc = enqueue(r, blobs[i], &dl, err);
    }
    return rc;
}

static void news(struct sm_source *source, sm_source_news_fn *fn, void *arg)
{
    struct registry *r = (struct registry *)(void *)source;
    const struct download *found[NEWS];
    uint64_t have[NEWS];
    size_t n;
    do {
        n = 0;
        pthread_mutex_lock(&r->lock);
        for (struct download *dl = r->downloads; dl && n < NEWS; dl = dl->next) {
            if (dl->have == dl->told)
                continue;
            found[n] = dl;
            have[n++] = dl->told = dl->have;
        }
        pthread_mutex_unlock(&r->lock);
        for (size_t i = 0; i < n; i++)
            fn(arg, &found[i]->d, have[i]);
    } while (n == NEWS);
}

/* ---- reading -------------------------------------------------------------------------------------- */

static int wait_for_bytes(struct sm_blob *blob, uint64_t have, uint64_t *available, sm_error *err)
{
    struct sink *s = blob->arg;
    struct download *dl = s->dl;
    pthread_mutex_lock(&s->r->lock);
    uint64_t there;
    while (true) {
        there = dl->state == DONE || dl->have == 0 ? dl->have : SM_MIN(dl->have, dl->d.size - 1);
        if (there > have || dl->state == DONE || dl->state == FAILED)
            break;
        pthread_cond_wait(&s->r->changed, &s->r->lock);
    }
    int rc = there > have ? 0 : dl->rc;
    if (rc && err)
        *err = dl->why;
    pthread_mutex_unlock(&s->r->lock);
    *available = there;
    return rc;
}

static int keep_in_mind(struct registry *r, const char *digest)
{
    char **grown = reallocarray(r->kept, r->kept_count + 1, sizeof(*grown));
    if (!grown)
        return -SM_ENOMEM;
    r->kept = grown;
    grown[r->kept_count] = strdup(digest);
    if (!grown[r->kept_count])
        return -SM_ENOMEM;
    r->kept_count++;
    return 0;
}

/* Gets a manifest by tag or digest into the store. *d: its digest, size and type. */
static int fetch_manifest(
    struct registry *r, const char *by, const char *shown, struct sm_descriptor *d, sm_error *err)
{
    char path[256], what[600], name[SM_STORE_NAME_MAX];
    snprintf(path, sizeof(path), "manifests/%s", by);
    snprintf(what, sizeof(what), "%s", shown);
    auto_http_body body = {.what = "the registry's manifest", .most = SM_JSON_MAX_SIZE};
    struct sm_http_get get = {
        .what = what,
        .path = path,
        .accept = SM_MT_OCI_INDEX ", " SM_MT_OCI_MANIFEST ", " SM_MT_DOCKER_LIST
                                  ", " SM_MT_DOCKER_MANIFEST,
        .sink = sm_http_take_body,
        .arg = &body,
    };
    int rc = sm_http_get(r->http, &get, err);
    const char *data = body.data ? body.data : "";
    if (rc == 0)
        rc = sm_digest_of(data, body.size, d->digest, err);
    if (rc)
        return rc;
    const char *want = sm_digest_valid(by) ? by : sm_digest_valid(get.digest) ? get.digest : NULL;
    if (want && strcmp(want, d->digest) != 0)
        return sm_error_set(err, SM_ECORRUPT,
            "the registry's answer for %s has the digest %s and not %s", shown, d->digest, want);
    d->size = body.size;
    snprintf(d->media_type, sizeof(d->media_type), "%.*s", (int)strcspn(get.content_type, "; "),
        get.content_type);
    sm_store_blob_name(d->digest, name);
    return sm_store_write(r->store, name, data, body.size, err);
}

static int open_blob(struct sm_source *source, const struct sm_descriptor *d, const char *name,
    struct sm_blob *blob, sm_error *err)
{
    struct registry *r = (struct registry *)(void *)source;
    int fd = sm_store_open_blob(r->store, d);
    if (fd < 0 && d->is_manifest) {
        struct sm_descriptor got;
        int rc = fetch_manifest(r, d->digest, d->digest, &got, err);
        if (rc)
            return rc;
        if (got.size != d->size)
            return sm_error_set(err, SM_ECORRUPT, "the manifest %s has %llu bytes and not %llu",
                d->digest, (unsigned long long)got.size, (unsigned long long)d->size);
        fd = sm_store_open_blob(r->store, d);
    } else if (fd >= 0 && keep_in_mind(r, d->digest) != 0) {
        sm_close(fd);
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    if (fd >= 0) {
        *blob = (struct sm_blob){.fd = fd, .size = d->size};
        return 0;
    }
    struct download *dl;
    int rc = enqueue(r, d, &dl, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&r->lock);
    while (dl->fd < 0 && dl->state != FAILED)
        pthread_cond_wait(&r->changed, &r->lock);
    rc = dl->fd < 0 ? dl->rc : 0;
    if (rc && err)
        *err = dl->why;
    pthread_mutex_unlock(&r->lock);
    struct sink *s = rc ? NULL : malloc(sizeof(*s));
    if (rc)
        return rc;
    fd = s ? fcntl(dl->fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (fd < 0) {
        free(s);
        return sm_error_errno(err, errno, "cannot open a blob");
    }
    *s = (struct sink){r, dl};
    *blob = (struct sm_blob){
        .fd = fd, .size = d->size, .wait = wait_for_bytes, .arg = s, .checked = true};
    return 0;
}

/* ---- the source ----------------------------------------------------------------------------------- */

static bool discard(struct sm_source *source)
{
    struct registry *r = (struct registry *)(void *)source;
    for (size_t i = 0; i < r->kept_count; i++) {
        char name[SM_STORE_NAME_MAX];
        sm_store_blob_name(r->kept[i], name);
        unlinkat(r->store->fd, name, 0);
    }
    return r->kept_count > 0;
}

static void free_registry(struct sm_source *source)
{
    struct registry *r = (struct registry *)(void *)source;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (r->http)
        sm_http_stop(r->http);
    for (unsigned i = 0; i < r->thread_count; i++)
        sm_thread_join(&r->threads[i]);
    while (r->downloads) {
        struct download *dl = r->downloads;
        r->downloads = dl->next;
        sm_close(dl->fd);
        sm_sha256_free(dl->sum);
        free(dl);
    }
    for (size_t i = 0; i < r->kept_count; i++)
        free(r->kept[i]);
    free(r->kept);
    sm_http_free(r->http);
    sm_close(r->blobs);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r->name);
    free(r);
}

static int resolve(
    struct registry *r, const struct sm_reference *ref, struct sm_descriptor *top, sm_error *err)
{
    *top = (struct sm_descriptor){.is_manifest = true};
    if (ref->digest) {
        char name[SM_STORE_NAME_MAX];
        struct stat st;
        sm_store_blob_name(ref->digest, name);
        memcpy(top->digest, ref->digest, sizeof(top->digest));
        if (fstatat(r->store->fd, name, &st, 0) == 0) {
            top->size = (uint64_t)st.st_size;
            return 0;
        }
    }
    auto_free char *shown = sm_reference_format(ref);
    if (!shown)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    int rc = fetch_manifest(r, ref->digest ? ref->digest : ref->tag, shown, top, err);
    if (rc && ref->short_name && (rc == -SM_ENOTFOUND || rc == -SM_EPERM)) {
        size_t n = err ? strlen(err->message) : 0;
        if (err)
            snprintf(err->message + n, sizeof(err->message) - n,
                "; a name without a registry in front means docker.io");
    }
    return rc;
}

static int make_http(
    struct registry *r, const struct sm_reference *ref, const struct sm_fetch *fetch, sm_error *err)
{
    struct sm_credentials c = {0};
    int rc = sm_credentials_find(ref->host, ref->repository, fetch->authfile, &c, err);
    const struct sm_http_options http = {
        .host = ref->host,
        .repository = ref->repository,
        .user = c.user,
        .password = c.password,
        .identity_token = c.identity_token,
        .fetch = *fetch,
    };
    if (rc == 0)
        rc = sm_http_new(&http, &r->http, err);
    sm_credentials_clear(&c);
    return rc;
}

int sm_registry_open(struct sm_imgstore *store, const struct sm_reference *ref,
    const struct sm_fetch *fetch, struct sm_source **source, struct sm_descriptor *top,
    sm_error *err)
{
    struct registry *r = calloc(1, sizeof(*r));
    if (!r)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    r->source = (struct sm_source){.open = open_blob,
        .free = free_registry,
        .prefetch = prefetch,
        .news = news,
        .discard = discard};
    r->store = store;
    r->blobs = -1;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    int rc = 0;
    if (asprintf(&r->name, "%s/%s", ref->host, ref->repository) < 0) {
        r->name = NULL;
        rc = sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    if (rc == 0)
        rc = sm_store_hold_blobs(store, &r->blobs, err);
    if (rc == 0)
        rc = make_http(r, ref, fetch, err);
    if (rc == 0)
        rc = resolve(r, ref, top, err);
    if (rc)
        free_registry(&r->source);
    else
        *source = &r->source;
    return rc;
}
