/*
 * Loading is making images from an archive, once for every image in it. Of an oci-archive the blobs
 * go into the store too, so that the image can be saved again when the archive is gone. See load.h.
 */
#include "builder/load.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "builder/archive.h"
#include "builder/blobs.h"
#include "builder/confine.h"
#include "builder/plan.h"
#include "builder/stream.h"
#include "image/json.h"
#include "image/store_files.h"
#include "image/tags.h"
#include "util/error.h"
#include "util/file.h"

enum {
    WAIT_STEP_MS = 500, /* after each it is told what is waited for */
};

struct loader {
    struct sm_imgstore *store;
    const struct sm_make_options *options;
    const char *path;
    bool streamed; /* the path will be gone */
    FILE *loaded;
    sm_error *err;
};

/* A blob that is copied into the store. */
struct copy {
    struct loader *l;
    int fd;
};

static int take_for_store(void *arg, const void *data, size_t size)
{
    const struct copy *c = arg;
    return sm_write_all(c->fd, data, size) == 0
               ? 0
               : sm_error_errno(
                     c->l->err, errno, "cannot write into the store %s", c->l->store->path);
}

/* Waits for another process that writes the same blob, for as long as that lives; see
 * sm_store_claim_blob. */
static int claim(
    struct loader *l, const struct sm_descriptor *d, struct sm_partial *file, int *there)
{
    static const sm_progress waiting = {.what = "waiting for another process that writes a blob"};
    int rc;
    while ((rc = sm_store_claim_blob(l->store, d, WAIT_STEP_MS, file, there, l->err)) == -SM_EBUSY)
        if (l->options->progress)
            l->options->progress(l->options->progress_arg, &waiting);
    return rc;
}

/* Copies a blob into the store, as sm_store_write does with what is in memory. */
static int keep_blob(struct loader *l, struct sm_source *source, const struct sm_descriptor *d)
{
    auto_partial file = SM_PARTIAL_NONE;
    auto_fd there = -1;
    int rc = claim(l, d, &file, &there);
    if (rc || there >= 0)
        return rc;
    if (ftruncate(file.fd, 0) != 0)
        return sm_error_errno(l->err, errno, "cannot write into the store %s", l->store->path);
    rc = sm_source_copy(source, d, take_for_store, &(struct copy){l, file.fd}, l->err);
    return rc ? rc : sm_partial_commit(&file, SM_PARTIAL_SYNC_FILE, l->err);
}

static int keep_blobs(struct loader *l, struct sm_source *source, const struct sm_descriptor *top,
    const struct sm_platform *platform)
{
    struct sm_plan plan = {0};
    int rc = sm_plan_oci(source, top, platform, &plan, l->err);
    if (rc == 0)
        rc = keep_blob(l, source, &plan.manifest_blob);
    if (rc == 0)
        rc = keep_blob(l, source, &plan.config_blob);
    for (size_t i = 0; rc == 0 && i < plan.layer_count; i++)
        rc = keep_blob(l, source, &plan.layers[i].blob);
    sm_plan_clear(&plan);
    return rc;
}

/* Makes one image; `which` is a name of the archive, "" where it has no other. */
static int load_one(
    struct loader *l, const char *transport, const char *which, char digest[SM_DIGEST_LEN + 1])
{
    auto_free char *reference = NULL;
    auto_free char *streamed = NULL;
    if (asprintf(&reference, "%s:%s%s", transport, l->path, which) < 0)
        reference = NULL;
    if (asprintf(&streamed, "%s:-%s", transport, which) < 0)
        streamed = NULL;
    if (!reference || !streamed)
        return sm_error_set(l->err, SM_ENOMEM, "out of memory");
    struct sm_make_options options = *l->options;
    options.source = l->streamed ? streamed : NULL;
    return sm_make_image(l->store, reference, &options, digest, l->err);
}

/* Image number i. */
static int load_number(
    struct loader *l, const char *transport, size_t i, char digest[SM_DIGEST_LEN + 1])
{
    char which[32];
    snprintf(which, sizeof(which), ":@%zu", i);
    return load_one(l, transport, which, digest);
}

/* Names like "latest", which say nothing without the layout they are in, are none. */
static int name_it(struct loader *l, const char *name, const char *digest)
{
    auto_reference ref = NULL;
    bool full = name && strpbrk(name, "/:") && sm_reference_parse(name, &ref, NULL) == 0 &&
                ref->kind == SM_REF_REGISTRY && !ref->digest;
    auto_free char *text = full ? sm_reference_format(ref) : NULL;
    fprintf(l->loaded, "%s\n", text ? text : digest);
    return full ? sm_store_put_tag(l->store, ref, digest, l->err) : 0;
}

/* Keeps what was made of an entry, and names it. */
static int keep_image(struct loader *l, struct sm_source *source, const struct sm_descriptor *top,
    const struct sm_platform *platform, const char *name, const char *digest)
{
    int rc = keep_blobs(l, source, top, platform);
    return rc ? rc : name_it(l, name, digest);
}

/* Docker's full name is in an annotation of containerd's, beside one that is the tag alone. */
static const char *name_of(const json_t *entry)
{
    const char *full =
        sm_json_string(json_object_get(entry, "annotations"), "io.containerd.image.name");
    return full ? full : sm_descriptor_name(entry);
}

static int load_each(struct loader *l, struct sm_source *source, const json_t *index,
    const struct sm_platform *platform)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(index, "manifests"), i, entry)
    {
        char digest[SM_DIGEST_LEN + 1];
        struct sm_descriptor top;
        int rc = sm_descriptor_parse(entry, "an entry of index.json", &top, l->err);
        if (rc == 0 && sm_descriptor_is_no_image(&top) && !name_of(entry))
            continue;
        if (rc == 0)
            rc = load_number(l, "oci-archive", i, digest);
        if (rc == 0)
            rc = keep_image(l, source, &top, platform, name_of(entry), digest);
        if (rc)
            return rc;
    }
    return 0;
}

/* The name of a layout that is one image, which docker gives it without one of the layout's. */
static const char *name_of_one(const json_t *index, const struct sm_descriptor *top)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(index, "manifests"), i, entry)
    {
        const char *digest = sm_json_string(entry, "digest");
        if (digest && strcmp(digest, top->digest) == 0)
            return name_of(entry);
    }
    return NULL;
}

static int load_oci(struct loader *l, struct sm_source *source, const json_t *index)
{
    struct sm_platform platform;
    struct sm_descriptor top;
    char digest[SM_DIGEST_LEN + 1];
    auto_fd held = -1;
    int rc = sm_platform_parse(l->options->fetch.platform, &platform, l->err);
    if (rc == 0)
        rc = sm_store_hold_blobs(l->store, &held, l->err);
    if (rc || !sm_layout_is_one_image(index))
        return rc ? rc : load_each(l, source, index, &platform);
    rc = sm_layout_choose(index, NULL, &platform, &top, l->err);
    if (rc == 0)
        rc = load_one(l, "oci-archive", "", digest);
    return rc ? rc : keep_image(l, source, &top, &platform, name_of_one(index, &top), digest);
}

static int load_docker(struct loader *l, const json_t *manifest)
{
    size_t i, j;
    json_t *entry, *tag;
    int rc = 0;
    json_array_foreach(json_object_get(manifest, "manifest"), i, entry)
    {
        char digest[SM_DIGEST_LEN + 1];
        const json_t *tags = json_object_get(entry, "RepoTags");
        if (rc == 0)
            rc = load_number(l, "docker-archive", i, digest);
        if (rc == 0 && json_array_size(tags) == 0)
            rc = name_it(l, NULL, digest);
        json_array_foreach(tags, j, tag) if (rc == 0) rc =
            name_it(l, json_string_value(tag), digest);
    }
    return rc;
}

static int load_all(struct loader *l)
{
    auto_source source = NULL;
    auto_json *root = NULL;
    bool is_oci;
    int rc = sm_any_archive_open(
        l->store, l->options->parsers, l->path, &source, &root, &is_oci, l->err);
    if (rc)
        return rc;
    if (json_array_size(json_object_get(root, is_oci ? "manifests" : "manifest")) > SM_MAX_IMAGES)
        return sm_error_set(
            l->err, SM_ELIMIT, "the archive has more than %d images", SM_MAX_IMAGES);
    return is_oci ? load_oci(l, source, root) : load_docker(l, root);
}

static int load_stream(struct loader *l, int stream)
{
    auto_partial file = SM_PARTIAL_NONE;
    auto_free char *path = NULL;
    int rc = sm_store_keep_stream(l->store, stream, &file, &path, l->err);
    l->path = path;
    l->streamed = true;
    return rc ? rc : load_all(l);
}

int sm_image_load(struct sm_imgstore *store, const char *path, int stream,
    const struct sm_make_options *options, char **loaded, sm_error *err)
{
    char *text = NULL;
    size_t size;
    if (stream < 0 && strchr(path, ':'))
        return sm_error_set(
            err, SM_EINVAL, "the file name %.200s has a ':' in it, rename it", path);
    struct loader l = {store, options, path, false, open_memstream(&text, &size), err};
    if (!l.loaded)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    int rc = sm_builder_confine(options->parsers, store, stream >= 0 ? NULL : path, NULL, err);
    if (rc == 0)
        rc = stream >= 0 ? load_stream(&l, stream) : load_all(&l);
    fclose(l.loaded);
    if (rc)
        free(text);
    else
        *loaded = text;
    return rc;
}
