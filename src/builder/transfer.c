/*
 * Saving copies blobs into a tar file, summing each; loading is building from an archive, once for every
 * image in it. Of an oci-archive the blobs go into the store too, so that the image can be saved again
 * when the archive is gone.
 */
#include "builder/transfer.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "builder/archive.h"
#include "builder/blobs.h"
#include "builder/digest.h"
#include "builder/plan.h"
#include "builder/store_source.h"
#include "image/find.h"
#include "image/json.h"
#include "image/store_files.h"
#include "image/tags.h"
#include "util/error.h"
#include "util/file.h"

enum {
    COPY_SIZE = 256 << 10,
    WAIT_STEP_MS = 500, /* after each it is told what is waited for */
};

#define MAX_STREAM (64ull << 30)

/* ---- saving ------------------------------------------------------------------------------------ */

/* The plan from the layout or archive that the image was made from, where the store has no blobs of it. */
static int plan_from_origin(struct sm_imgstore *store, const struct sm_image_info *info,
    const struct sm_platform *platform, struct sm_source **source, struct sm_plan *plan,
    sm_error *err)
{
    auto_reference ref = NULL;
    auto_json *index = NULL;
    struct sm_descriptor top;
    int rc = sm_reference_parse(info->source, &ref, err);
    if (rc == 0 && ref->kind == SM_REF_OCI_DIR)
        rc = sm_layout_open(ref->path, source, &index, err);
    else if (rc == 0 && ref->kind == SM_REF_OCI_ARCHIVE)
        rc = sm_oci_archive_open(store, ref->path, source, &index, err);
    else if (rc == 0)
        rc = sm_error_set(err, SM_EUNSUPPORTED,
            "the store has only the root filesystem of the image, not its layers: "
            "copy what it was made from (%.200s)",
            info->source);
    if (rc == 0)
        rc = sm_layout_choose(index, ref->name, platform, &top, err);
    if (rc == 0)
        rc = sm_plan_oci(*source, &top, platform, plan, err);
    if (rc == 0 && strcmp(plan->digest, info->digest) != 0)
        rc = sm_error_set(err, SM_ENOTFOUND,
            "the store has only the root filesystem of the image, "
            "and what it was made from (%.200s) has changed",
            info->source);
    return rc;
}

struct saver {
    struct archive *tar;
    struct sm_source *source;
    char *buf;
    sm_error *err;
};

static int begin_member(struct saver *s, const char *name, uint64_t size)
{
    struct archive_entry *e = archive_entry_new();
    if (!e)
        return sm_error_set(s->err, SM_ENOMEM, "out of memory");
    archive_entry_set_pathname(e, name);
    archive_entry_set_mode(e, S_IFREG | 0644);
    archive_entry_set_size(e, (la_int64_t)size);
    archive_entry_set_mtime(e, 0, 0);
    int got = archive_write_header(s->tar, e);
    archive_entry_free(e);
    return got == ARCHIVE_OK ? 0
                             : sm_error_set(s->err, SM_EIO, "cannot write the archive: %s",
                                   archive_error_string(s->tar));
}

static int put_bytes(struct saver *s, const void *data, size_t size)
{
    if (archive_write_data(s->tar, data, size) == (la_ssize_t)size)
        return 0;
    return sm_error_set(
        s->err, SM_EIO, "cannot write the archive: %s", archive_error_string(s->tar));
}

static int save_text(struct saver *s, const char *name, const char *text)
{
    int rc = begin_member(s, name, strlen(text));
    return rc ? rc : put_bytes(s, text, strlen(text));
}

typedef int take_fn(void *arg, const void *data, size_t size);

static int take_for_tar(void *arg, const void *data, size_t size)
{
    return put_bytes(arg, data, size);
}

/* Hands a blob on piece by piece, and fails at its end when the digest is wrong. */
static int copy_blob(struct sm_source *source, const struct sm_descriptor *d, char *buf,
    take_fn *take, void *arg, sm_error *err)
{
    auto_blob blob = {.fd = -1};
    int rc = source->open(source, d, NULL, &blob, err);
    if (rc)
        return rc;
    struct sm_sha256 *sum = sm_sha256_new();
    if (!sum)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    uint64_t pos = 0;
    while (rc == 0 && pos < blob.size) {
        ssize_t n = sm_blob_read(&blob, pos, buf, COPY_SIZE, err);
        if (n <= 0) {
            rc = n < 0 ? (int)n
                       : sm_error_set(err, SM_ECORRUPT, "the blob %s is cut off", d->digest);
            break;
        }
        sm_sha256_update(sum, buf, (size_t)n);
        pos += (uint64_t)n;
        rc = take(arg, buf, (size_t)n);
    }
    if (rc == 0)
        rc = sm_sha256_check(sum, d->digest, err);
    sm_sha256_free(sum);
    return rc;
}

static int save_blob(struct saver *s, const struct sm_descriptor *d)
{
    char name[SM_STORE_NAME_MAX];
    sm_store_blob_name(d->digest, name);
    int rc = begin_member(s, name, d->size);
    return rc ? rc : copy_blob(s->source, d, s->buf, take_for_tar, s, s->err);
}

static int save_index(struct saver *s, const struct sm_plan *plan, const char *name)
{
    const struct sm_descriptor *d = &plan->manifest_blob;
    auto_json *annotations =
        name ? json_pack("{s:s}", "org.opencontainers.image.ref.name", name) : json_object();
    auto_json *root = json_pack("{s:i, s:[{s:s, s:s, s:I, s:O}]}", "schemaVersion", 2, "manifests",
        "mediaType", d->media_type, "digest", d->digest, "size", (json_int_t)d->size, "annotations",
        annotations);
    auto_free char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    return text ? save_text(s, "index.json", text)
                : sm_error_set(s->err, SM_ENOMEM, "out of memory");
}

/* Layers that occur twice are in the archive once. */
static bool seen(const struct sm_plan *plan, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (strcmp(plan->layers[j].blob.digest, plan->layers[i].blob.digest) == 0)
            return true;
    return false;
}

static int write_archive(struct saver *s, const struct sm_plan *plan, const char *name, int fd)
{
    archive_write_set_format_pax_restricted(s->tar);
    if (archive_write_open_fd(s->tar, fd) != ARCHIVE_OK)
        return sm_error_set(
            s->err, SM_EIO, "cannot write the archive: %s", archive_error_string(s->tar));
    int rc = save_text(s, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
    if (rc == 0)
        rc = save_index(s, plan, name);
    if (rc == 0)
        rc = save_blob(s, &plan->manifest_blob);
    if (rc == 0)
        rc = save_blob(s, &plan->config_blob);
    for (size_t i = 0; rc == 0 && i < plan->layer_count; i++)
        if (!seen(plan, i))
            rc = save_blob(s, &plan->layers[i].blob);
    if (rc == 0 && archive_write_close(s->tar) != ARCHIVE_OK)
        rc = sm_error_set(
            s->err, SM_EIO, "cannot write the archive: %s", archive_error_string(s->tar));
    return rc;
}

static int save_to(
    struct sm_source *source, const struct sm_plan *plan, const char *name, int fd, sm_error *err)
{
    auto_free char *buf = malloc(COPY_SIZE);
    struct saver s = {.tar = archive_write_new(), .source = source, .buf = buf, .err = err};
    int rc = buf && s.tar ? write_archive(&s, plan, name, fd)
                          : sm_error_set(err, SM_ENOMEM, "out of memory");
    archive_write_free(s.tar);
    return rc;
}

static int save_plan(struct sm_source *source, const struct sm_plan *plan, const char *name,
    const char *path, sm_error *err)
{
    auto_partial file = SM_PARTIAL_NONE;
    int rc = sm_partial_open(&file, AT_FDCWD, path, NULL, err);
    if (rc == 0)
        rc = save_to(source, plan, name, file.fd, err);
    return rc ? rc : sm_partial_commit(&file, SM_PARTIAL_SYNC_FILE, err);
}

int sm_image_save(
    struct sm_imgstore *store, const char *reference, const char *path, int stream, sm_error *err)
{
    auto_reference ref = NULL;
    auto_source source = NULL;
    struct sm_platform platform;
    struct sm_image_info info;
    struct sm_plan plan = {0};
    int rc = sm_reference_parse(reference, &ref, err);
    if (rc == 0)
        rc = sm_platform_parse(NULL, &platform, err);
    if (rc == 0)
        rc = sm_store_resolve(store, ref, &platform, false, &info, err);
    if (rc)
        return rc;
    rc = sm_platform_parse(info.platform, &platform, err);
    if (rc == 0)
        rc = sm_stored_open(store, &info, &platform, &source, &plan, err);
    if (rc == -SM_ENOTFOUND) {
        sm_source_free(source);
        source = NULL;
        rc = plan_from_origin(store, &info, &platform, &source, &plan, err);
    }
    auto_free char *name =
        ref->kind == SM_REF_REGISTRY && !ref->digest ? sm_reference_format(ref) : NULL;
    if (rc == 0)
        rc = stream >= 0 ? save_to(source, &plan, name, stream, err)
                         : save_plan(source, &plan, name, path, err);
    sm_plan_clear(&plan);
    sm_image_info_clear(&info);
    return rc;
}

/* ---- loading ----------------------------------------------------------------------------------- */

struct loader {
    struct sm_imgstore *store;
    const struct sm_make_options *options;
    const char *path;
    bool streamed; /* the path will be gone */
    FILE *loaded;
    sm_error *err;
};

static int take_for_file(void *arg, const void *data, size_t size)
{
    const int *fd = arg;
    return sm_write_all(*fd, data, size) == 0 ? 0 : -SM_EIO;
}

/* Waits for another process that writes the same blob, for as long as that lives; see sm_store_claim_blob. */
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
static int keep_blob(
    struct loader *l, struct sm_source *source, const struct sm_descriptor *d, char *buf)
{
    auto_partial file = SM_PARTIAL_NONE;
    auto_fd there = -1;
    int rc = claim(l, d, &file, &there);
    if (rc || there >= 0)
        return rc;
    if (ftruncate(file.fd, 0) != 0)
        return sm_error_errno(l->err, errno, "cannot write into the store %s", l->store->path);
    rc = copy_blob(source, d, buf, take_for_file, &file.fd, l->err);
    if (rc == -SM_EIO)
        return sm_error_errno(l->err, errno, "cannot write into the store %s", l->store->path);
    return rc ? rc : sm_partial_commit(&file, SM_PARTIAL_SYNC_FILE, l->err);
}

static int keep_blobs(struct loader *l, struct sm_source *source, const struct sm_descriptor *top,
    const struct sm_platform *platform)
{
    struct sm_plan plan = {0};
    auto_free char *buf = malloc(COPY_SIZE);
    if (!buf)
        return sm_error_set(l->err, SM_ENOMEM, "out of memory");
    int rc = sm_plan_oci(source, top, platform, &plan, l->err);
    if (rc == 0)
        rc = keep_blob(l, source, &plan.manifest_blob, buf);
    if (rc == 0)
        rc = keep_blob(l, source, &plan.config_blob, buf);
    for (size_t i = 0; rc == 0 && i < plan.layer_count; i++)
        rc = keep_blob(l, source, &plan.layers[i].blob, buf);
    sm_plan_clear(&plan);
    return rc;
}

/* Builds image number i; `name` (or NULL) is what the archive calls it. */
static int load_one(
    struct loader *l, const char *transport, size_t i, char digest[SM_DIGEST_LEN + 1])
{
    auto_free char *reference = NULL;
    auto_free char *streamed = NULL;
    if (asprintf(&reference, "%s:%s:@%zu", transport, l->path, i) < 0)
        reference = NULL;
    if (asprintf(&streamed, "%s:-:@%zu", transport, i) < 0)
        streamed = NULL;
    if (!reference || !streamed)
        return sm_error_set(l->err, SM_ENOMEM, "out of memory");
    struct sm_make_options options = *l->options;
    options.source = l->streamed ? streamed : NULL;
    return sm_make_image(l->store, reference, &options, digest, l->err);
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

static int load_oci(struct loader *l, struct sm_source *source, const json_t *index)
{
    struct sm_platform platform;
    size_t i;
    json_t *entry;
    auto_fd held = -1;
    int rc = sm_platform_parse(l->options->fetch.platform, &platform, l->err);
    if (rc == 0)
        rc = sm_store_hold_blobs(l->store, &held, l->err);
    json_array_foreach(json_object_get(index, "manifests"), i, entry)
    {
        char digest[SM_DIGEST_LEN + 1];
        struct sm_descriptor top;
        if (rc == 0)
            rc = sm_descriptor_parse(entry, "an entry of index.json", &top, l->err);
        if (rc == 0)
            rc = load_one(l, "oci-archive", i, digest);
        if (rc == 0)
            rc = keep_blobs(l, source, &top, &platform);
        if (rc == 0)
            rc = name_it(l,
                sm_json_string(
                    json_object_get(entry, "annotations"), "org.opencontainers.image.ref.name"),
                digest);
        if (rc)
            return rc;
    }
    return rc;
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
            rc = load_one(l, "docker-archive", i, digest);
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
    int rc = sm_oci_archive_open(l->store, l->path, &source, &root, l->err);
    if (rc == 0)
        return load_oci(l, source, root);
    if (rc == -SM_ECORRUPT &&
        sm_docker_archive_open(l->store, l->path, &source, &root, l->err) == 0)
        return load_docker(l, root);
    return rc;
}

/* An archive is read here and there, so what comes from a stream is kept in the store's tmp/ meanwhile. */
static int load_stream(struct loader *l, int stream)
{
    auto_partial file = SM_PARTIAL_NONE;
    auto_free char *buf = malloc(COPY_SIZE);
    auto_free char *path = NULL;
    int rc = buf ? sm_store_open_tmp(l->store, &file, l->err)
                 : sm_error_set(l->err, SM_ENOMEM, "out of memory");
    uint64_t total = 0;
    ssize_t n = 1;
    while (rc == 0 && n != 0) {
        n = read(stream, buf, COPY_SIZE);
        if (n < 0 && errno != EINTR)
            rc = sm_error_errno(l->err, errno, "cannot read the archive");
        else if (n > 0 && (total += (uint64_t)n) > MAX_STREAM)
            rc = sm_error_set(
                l->err, SM_ELIMIT, "the archive is larger than %llu GiB", MAX_STREAM >> 30);
        else if (n > 0 && sm_write_all(file.fd, buf, (size_t)n) != 0)
            rc = sm_error_errno(l->err, errno, "cannot write into the store %s", l->store->path);
    }
    if (rc == 0 && asprintf(&path, "%s/%s", l->store->path, file.partial) < 0) {
        path = NULL;
        rc = sm_error_set(l->err, SM_ENOMEM, "out of memory");
    }
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
    int rc = stream >= 0 ? load_stream(&l, stream) : load_all(&l);
    fclose(l.loaded);
    if (rc)
        free(text);
    else
        *loaded = text;
    return rc;
}
