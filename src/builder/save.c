/* Copies blobs into a tar file, summing each. See save.h. */
#include "builder/save.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "builder/archive.h"
#include "builder/plan.h"
#include "builder/store_source.h"
#include "image/find.h"
#include "image/json.h"
#include "image/store_files.h"
#include "util/error.h"
#include "util/file.h"

/* The plan from the layout or archive that the image was made from, where the store has no blobs of
 * it. */
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

static int put_bytes(void *arg, const void *data, size_t size)
{
    struct saver *s = arg;
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

static int save_blob(struct saver *s, const struct sm_descriptor *d)
{
    char name[SM_STORE_NAME_MAX];
    sm_store_blob_name(d->digest, name);
    int rc = begin_member(s, name, d->size);
    return rc ? rc : sm_source_copy(s->source, d, put_bytes, s, s->err);
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
    struct saver s = {.tar = archive_write_new(), .source = source, .err = err};
    int rc =
        s.tar ? write_archive(&s, plan, name, fd) : sm_error_set(err, SM_ENOMEM, "out of memory");
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
