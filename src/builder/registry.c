/* Manifests come into memory and then into the store, layers by way of downloads.h. See
 * registry.h. */
#include "builder/registry.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builder/blobs.h"
#include "builder/digest.h"
#include "builder/downloads.h"
#include "builder/http.h"
#include "builder/http_body.h"
#include "image/json.h"
#include "image/store_files.h"
#include "util/error.h"
#include "util/strv.h"

struct registry {
    struct sm_source source;
    struct sm_imgstore *store;
    int blobs; /* of sm_store_hold_blobs */
    struct sm_http *http;
    struct sm_downloads *downloads;
    char *name;          /* "docker.io/library/alpine" */
    struct sm_strv kept; /* digests that came out of the store as they were */
};

static struct registry *of_source(struct sm_source *source)
{
    return (struct registry *)(void *)source;
}

static int prefetch(
    struct sm_source *source, const struct sm_descriptor *const *blobs, size_t count, sm_error *err)
{
    struct registry *r = of_source(source);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        auto_fd fd = sm_store_open_blob(r->store, blobs[i]);
        if (fd < 0)
            rc = sm_downloads_add(r->downloads, blobs[i], err);
    }
    return rc;
}

static void news(struct sm_source *source, sm_source_news_fn *fn, void *arg)
{
    sm_downloads_news(of_source(source)->downloads, fn, arg);
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
    struct registry *r = of_source(source);
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
    } else if (fd >= 0 && !sm_strv_add(&r->kept, d->digest)) {
        sm_close(fd);
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    if (fd >= 0) {
        *blob = (struct sm_blob){.fd = fd, .size = d->size};
        return 0;
    }
    return sm_downloads_open(r->downloads, d, blob, err);
}

/* ---- the source ------------------------------------------------------------------------------ */

static bool discard(struct sm_source *source)
{
    struct registry *r = of_source(source);
    for (size_t i = 0; i < r->kept.count; i++) {
        char name[SM_STORE_NAME_MAX];
        sm_store_blob_name(r->kept.items[i], name);
        unlinkat(r->store->fd, name, 0);
    }
    return r->kept.count > 0;
}

static void free_registry(struct sm_source *source)
{
    struct registry *r = of_source(source);
    sm_downloads_free(r->downloads);
    sm_strv_clear(&r->kept);
    sm_http_free(r->http);
    sm_close(r->blobs);
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

static int make_http(struct registry *r, const struct sm_reference *ref,
    const struct sm_credentials *c, const struct sm_fetch *fetch, sm_error *err)
{
    const struct sm_http_options http = {
        .host = ref->host,
        .repository = ref->repository,
        .user = c->user,
        .password = c->password,
        .identity_token = c->identity_token,
        .fetch = *fetch,
    };
    return sm_http_new(&http, &r->http, err);
}

int sm_registry_open(struct sm_imgstore *store, const struct sm_reference *ref,
    const struct sm_credentials *credentials, const struct sm_fetch *fetch,
    struct sm_source **source, struct sm_descriptor *top, sm_error *err)
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
    int rc = 0;
    if (asprintf(&r->name, "%s/%s", ref->host, ref->repository) < 0) {
        r->name = NULL;
        rc = sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    if (rc == 0)
        rc = sm_store_hold_blobs(store, &r->blobs, err);
    if (rc == 0)
        rc = make_http(r, ref, credentials, fetch, err);
    if (rc == 0 && !(r->downloads = sm_downloads_new(store, r->http, r->name)))
        rc = sm_error_set(err, SM_ENOMEM, "out of memory");
    if (rc == 0)
        rc = resolve(r, ref, top, err);
    if (rc)
        free_registry(&r->source);
    else
        *source = &r->source;
    return rc;
}
