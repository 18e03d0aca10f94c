/* Copies blobs into a tar file, summing each. See save.h. */
#include "builder/save.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "builder/archive.h"
#include "builder/digest.h"
#include "builder/parsers.h"
#include "builder/plan.h"
#include "builder/store_source.h"
#include "image/find.h"
#include "image/json.h"
#include "image/store_files.h"
#include "util/error.h"
#include "util/file.h"

/* Of docker's archive, which has no manifest. */
static int plan_from_docker(struct sm_imgstore *store, struct sm_parsers *parsers,
    const struct sm_reference *ref, const struct sm_platform *platform, struct sm_source **source,
    struct sm_plan *plan, sm_error *err)
{
    auto_json *manifest = NULL;
    int rc = sm_docker_archive_open(store, parsers, ref->path, source, &manifest, err);
    return rc ? rc : sm_plan_docker(*source, manifest, ref->name, platform, plan, err);
}

static int plan_from_oci(struct sm_imgstore *store, struct sm_parsers *parsers,
    const struct sm_reference *ref, const struct sm_platform *platform, struct sm_source **source,
    struct sm_plan *plan, sm_error *err)
{
    auto_json *index = NULL;
    struct sm_descriptor top;
    int rc = ref->kind == SM_REF_OCI_DIR
                 ? sm_layout_open(ref->path, source, &index, err)
                 : sm_oci_archive_open(store, parsers, ref->path, source, &index, err);
    if (rc == 0)
        rc = sm_layout_choose(index, ref->name, platform, &top, err);
    return rc ? rc : sm_plan_oci(*source, &top, platform, plan, err);
}

/* The plan from the layout or archive that the image was made from, where the store has no blobs of
 * it. */
static int plan_from_origin(struct sm_imgstore *store, struct sm_parsers *parsers,
    const struct sm_image_info *info, const struct sm_platform *platform,
    enum sm_archive_format format, struct sm_source **source, struct sm_plan *plan, sm_error *err)
{
    auto_reference ref = NULL;
    int rc = sm_reference_parse(info->source, &ref, err);
    if (rc)
        return rc;
    if (ref->kind == SM_REF_OCI_DIR || ref->kind == SM_REF_OCI_ARCHIVE)
        rc = plan_from_oci(store, parsers, ref, platform, source, plan, err);
    else if (ref->kind == SM_REF_DOCKER_ARCHIVE && format == SM_ARCHIVE_DOCKER)
        rc = plan_from_docker(store, parsers, ref, platform, source, plan, err);
    else
        rc = sm_error_set(err, SM_EUNSUPPORTED,
            "the store has only the root filesystem of the image, not its layers: "
            "copy what it was made from (%.200s)%s",
            info->source,
            ref->kind == SM_REF_DOCKER_ARCHIVE ? ", or save it as a docker-archive" : "");
    if (rc == 0 && strcmp(plan->digest, info->digest) != 0)
        rc = sm_error_set(err, SM_ENOTFOUND,
            "the store has only the root filesystem of the image, "
            "and what it was made from (%.200s) has changed",
            info->source);
    return rc;
}

/* ---- members of a tar ------------------------------------------------------------------------ */

struct saver {
    struct archive *tar;
    struct sm_parsers *parsers;
    struct sm_source *source;
    const struct sm_plan *plan;
    const char *name; /* the image's, or NULL */
    sm_error *err;
};

static int not_written(struct saver *s)
{
    return sm_error_set(
        s->err, SM_EIO, "cannot write the archive: %s", archive_error_string(s->tar));
}

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
    return got == ARCHIVE_OK ? 0 : not_written(s);
}

static int has_changed(struct saver *s)
{
    return sm_error_set(
        s->err, SM_ECORRUPT, "it has changed while it was saved; save it again once it is whole");
}

/* libarchive takes no more than what the member was said to have, and calls that no error. */
static int put_bytes(void *arg, const void *data, size_t size)
{
    struct saver *s = arg;
    la_ssize_t n = archive_write_data(s->tar, data, size);
    return n == (la_ssize_t)size ? 0 : n < 0 ? not_written(s) : has_changed(s);
}

static int save_text(struct saver *s, const char *name, const char *text)
{
    int rc = begin_member(s, name, strlen(text));
    return rc ? rc : put_bytes(s, text, strlen(text));
}

/* As text, which is released. */
static int save_json(struct saver *s, const char *name, json_t *root)
{
    auto_free char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return text ? save_text(s, name, text) : sm_error_set(s->err, SM_ENOMEM, "out of memory");
}

/* ---- an oci-archive -------------------------------------------------------------------------- */

static int save_blob(struct saver *s, const struct sm_descriptor *d)
{
    char name[SM_STORE_NAME_MAX];
    sm_store_blob_name(d->digest, name);
    int rc = begin_member(s, name, d->size);
    return rc ? rc : sm_source_copy(s->source, d, put_bytes, s, s->err);
}

static int save_index(struct saver *s)
{
    const struct sm_descriptor *d = &s->plan->manifest_blob;
    auto_json *annotations =
        s->name ? json_pack("{s:s}", "org.opencontainers.image.ref.name", s->name) : json_object();
    return save_json(s, "index.json",
        json_pack("{s:i, s:[{s:s, s:s, s:I, s:O}]}", "schemaVersion", 2, "manifests", "mediaType",
            d->media_type, "digest", d->digest, "size", (json_int_t)d->size, "annotations",
            annotations));
}

/* Layers that occur twice are in the archive once. */
static bool blob_seen(const struct sm_plan *plan, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (strcmp(plan->layers[j].blob.digest, plan->layers[i].blob.digest) == 0)
            return true;
    return false;
}

static int save_as_oci(struct saver *s)
{
    const struct sm_plan *plan = s->plan;
    int rc = save_text(s, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
    if (rc == 0)
        rc = save_index(s);
    if (rc == 0)
        rc = save_blob(s, &plan->manifest_blob);
    if (rc == 0)
        rc = save_blob(s, &plan->config_blob);
    for (size_t i = 0; rc == 0 && i < plan->layer_count; i++)
        if (!blob_seen(plan, i))
            rc = save_blob(s, &plan->layers[i].blob);
    return rc;
}

/* ---- a docker-archive ------------------------------------------------------------------------ */

/* A layer's tar: looked at, then written. */
struct layer_tar {
    struct saver *s;
    struct sm_sha256 *sum;
    uint64_t size;
    bool written;
};

static int take_tar(void *arg, const void *data, size_t size, sm_error *err)
{
    struct layer_tar *t = arg;
    sm_sha256_update(t->sum, data, size);
    t->size += size;
    return t->written ? put_bytes(t->s, data, size) : 0;
}

/* All of it, or what is wrong. */
static int read_tar(struct layer_tar *t, const struct sm_layer *layer)
{
    static const struct sm_inflate_ops ops = {.take = take_tar};
    sm_error *err = t->s->err;
    t->size = 0;
    t->sum = sm_sha256_new();
    if (!t->sum)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    auto_blob blob = {.fd = -1};
    int rc = t->s->source->open(t->s->source, &layer->blob, layer->name, &blob, err);
    if (rc == 0)
        rc = sm_parsers_inflate(t->s->parsers, &blob, &layer->blob, &ops, NULL, t, err);
    char digest[SM_DIGEST_LEN + 1];
    sm_sha256_finish(t->sum, digest);
    sm_sha256_free(t->sum);
    bool differs = rc == 0 && strcmp(digest, layer->diff_id) != 0;
    if (differs && t->written)
        rc = has_changed(t->s);
    else if (differs)
        rc = sm_error_set(err, SM_ECORRUPT, "it unpacks to %s, but the image's config says %s",
            digest, layer->diff_id);
    return rc;
}

static void layer_name(const struct sm_layer *layer, char name[SM_DIGEST_LEN + 8])
{
    snprintf(name, SM_DIGEST_LEN + 8, "%s.tar", layer->diff_id + strlen("sha256:"));
}

static int save_layer(struct saver *s, size_t i)
{
    const struct sm_layer *layer = &s->plan->layers[i];
    struct layer_tar t = {.s = s};
    char name[SM_DIGEST_LEN + 8];
    layer_name(layer, name);
    int rc = read_tar(&t, layer);
    if (rc == 0)
        rc = begin_member(s, name, t.size);
    t.written = true;
    if (rc == 0)
        rc = read_tar(&t, layer);
    return rc ? sm_error_prefix(s->err, rc, "layer %zu of %zu", i + 1, s->plan->layer_count) : 0;
}

static bool tar_seen(const struct sm_plan *plan, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (strcmp(plan->layers[j].diff_id, plan->layers[i].diff_id) == 0)
            return true;
    return false;
}

static int save_manifest(struct saver *s, const char *config)
{
    auto_json *layers = json_array();
    for (size_t i = 0; i < s->plan->layer_count; i++) {
        char name[SM_DIGEST_LEN + 8];
        layer_name(&s->plan->layers[i], name);
        if (json_array_append_new(layers, json_string(name)) != 0)
            return sm_error_set(s->err, SM_ENOMEM, "out of memory");
    }
    auto_json *tags = s->name ? json_pack("[s]", s->name) : json_array();
    return save_json(s, "manifest.json",
        json_pack("[{s:s, s:O, s:O}]", "Config", config, "RepoTags", tags, "Layers", layers));
}

static int save_as_docker(struct saver *s)
{
    const struct sm_plan *plan = s->plan;
    char digest[SM_DIGEST_LEN + 1], config[SM_DIGEST_LEN + 8];
    int rc = sm_digest_of(plan->config, strlen(plan->config), digest, s->err);
    if (rc)
        return rc;
    snprintf(config, sizeof(config), "%s.json", digest + strlen("sha256:"));
    for (size_t i = 0; rc == 0 && i < plan->layer_count; i++)
        if (!tar_seen(plan, i))
            rc = save_layer(s, i);
    if (rc == 0)
        rc = save_text(s, config, plan->config);
    return rc ? rc : save_manifest(s, config);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static int write_archive(struct saver *s, enum sm_archive_format format, int fd)
{
    archive_write_set_format_pax_restricted(s->tar);
    if (archive_write_open_fd(s->tar, fd) != ARCHIVE_OK)
        return not_written(s);
    int rc = format == SM_ARCHIVE_DOCKER ? save_as_docker(s) : save_as_oci(s);
    return rc == 0 && archive_write_close(s->tar) != ARCHIVE_OK ? not_written(s) : rc;
}

/* What is saved, and how. */
struct saved {
    struct sm_parsers *parsers;
    struct sm_source *source;
    const struct sm_plan *plan;
    const char *name;
    enum sm_archive_format format;
};

static int save_to(const struct saved *what, int fd, sm_error *err)
{
    struct saver s = {
        archive_write_new(), what->parsers, what->source, what->plan, what->name, err};
    int rc =
        s.tar ? write_archive(&s, what->format, fd) : sm_error_set(err, SM_ENOMEM, "out of memory");
    archive_write_free(s.tar);
    return rc;
}

static int save_file(const struct saved *what, const char *path, sm_error *err)
{
    auto_partial file = SM_PARTIAL_NONE;
    int rc = sm_partial_open(&file, AT_FDCWD, path, NULL, err);
    if (rc == 0)
        rc = save_to(what, file.fd, err);
    return rc ? rc : sm_partial_commit(&file, SM_PARTIAL_SYNC_FILE, err);
}

int sm_image_save(struct sm_imgstore *store, struct sm_parsers *parsers, const char *reference,
    enum sm_archive_format format, const char *path, int stream, sm_error *err)
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
        rc = plan_from_origin(store, parsers, &info, &platform, format, &source, &plan, err);
    }
    auto_free char *name =
        ref->kind == SM_REF_REGISTRY && !ref->digest ? sm_reference_format(ref) : NULL;
    const struct saved what = {parsers, source, &plan, name, format};
    if (rc == 0)
        rc = stream >= 0 ? save_to(&what, stream, err) : save_file(&what, path, err);
    sm_plan_clear(&plan);
    sm_image_info_clear(&info);
    return rc;
}
