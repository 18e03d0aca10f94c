/*
 * A reference leads to the digest of a manifest or of an index (the "top"): by the layout's
 * index.json, by the record of an archive whose fingerprint still fits, by a name's file. An index
 * and a platform lead to a manifest (indexes/), a manifest to its record (images/), and that to the
 * root filesystem. No step trusts that the next one is there.
 */
#include "image/find.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/index.h"
#include "image/json.h"
#include "image/leads.h"
#include "image/store_files.h"
#include "image/tags.h"
#include "util/error.h"

/* Finishes the "sha256:" text with the only image that starts so. */
static int complete_digest(
    struct sm_imgstore *store, const char *prefix, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    const char *hex = prefix + 7;
    size_t n = strlen(hex);
    auto_dir dir = sm_open_dir(store->fd, "images/sha256", 0);
    if (!dir)
        return sm_error_set(err, SM_ENOTFOUND, "the store has no image %s", prefix);
    unsigned found = 0;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (strncmp(entry->d_name, hex, n) != 0 ||
            strlen(entry->d_name) != SM_SHA256_HEX_LEN + strlen(".json"))
            continue;
        found++;
        snprintf(digest, SM_DIGEST_LEN + 1, "sha256:%.64s", entry->d_name);
    }
    if (found == 1)
        return 0;
    if (found == 0)
        return sm_error_set(err, SM_ENOTFOUND, "the store has no image %s", prefix);
    return sm_error_set(err, SM_EINVAL, "%u images start with %s, give more digits", found, prefix);
}

/* What is looked for, handed down the steps. */
struct search {
    struct sm_imgstore *store;
    const struct sm_reference *ref;
    const struct sm_platform *platform;
    bool to_run; /* the image must fit the platform, and is locked */
    struct sm_image_info *info;
    sm_error *err;
};

static int found(const struct search *s, const char *digest)
{
    return sm_store_get_image(
        s->store, digest, s->to_run ? s->platform : NULL, s->to_run, s->info, s->err);
}

static int find_top(const struct search *s, const char *top)
{
    char digest[SM_DIGEST_LEN + 1];
    bool chosen = sm_store_get_choice(s->store, top, s->platform, digest, NULL) == 0;
    return found(s, chosen ? digest : top);
}

static int find_layout(const struct search *s)
{
    auto_fd dir = open(s->ref->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return sm_error_errno(s->err, errno, "cannot open the OCI layout %s", s->ref->path);
    auto_json *index = NULL;
    struct sm_descriptor top;
    int rc = sm_json_load_at(dir, "index.json", &index, s->err);
    if (rc == 0)
        rc = sm_layout_choose(index, s->ref->name, s->platform, &top, s->err);
    if (rc)
        return sm_error_prefix(s->err, rc, "OCI layout %s", s->ref->path);
    return find_top(s, top.digest);
}

static int find_archive(const struct search *s)
{
    if (sm_reference_is_stream(s->ref))
        return sm_error_set(
            s->err, SM_ENOTFOUND, "what is in an archive is not known before it is read");
    auto_free char *path = realpath(s->ref->path, NULL);
    if (!path)
        return sm_error_errno(s->err, errno, "cannot open the archive %s", s->ref->path);
    char digest[SM_DIGEST_LEN + 1];
    int rc = sm_store_get_archive(s->store, s->ref, path, s->platform, digest, s->err);
    return rc ? rc : found(s, digest);
}

static int find_name(const struct search *s)
{
    if (s->ref->digest)
        return find_top(s, s->ref->digest);
    char name[SM_STORE_NAME_MAX], digest[SM_DIGEST_LEN + 1];
    int rc = sm_store_tag_name(s->ref, name, s->err);
    if (rc)
        return rc;
    rc = sm_store_get_tag(s->store, name, digest, s->err);
    if (rc == 0)
        return find_top(s, digest);
    if (rc != -SM_ENOTFOUND)
        return rc;
    if (s->ref->id_prefix) {
        char prefix[SM_DIGEST_LEN + 1];
        snprintf(prefix, sizeof(prefix), "sha256:%s", s->ref->id_prefix);
        if (complete_digest(s->store, prefix, digest, NULL) == 0)
            return found(s, digest);
    }
    return sm_error_set(s->err, SM_ENOTFOUND, "the store has no image %s/%s:%s", s->ref->host,
        s->ref->repository, s->ref->tag);
}

static int resolve(const struct search *s)
{
    char digest[SM_DIGEST_LEN + 1];
    int rc;
    switch (s->ref->kind) {
    case SM_REF_OCI_DIR:
        return find_layout(s);
    case SM_REF_OCI_ARCHIVE:
    case SM_REF_DOCKER_ARCHIVE:
        return find_archive(s);
    case SM_REF_REGISTRY:
        return find_name(s);
    case SM_REF_DIGEST:
        rc = complete_digest(s->store, s->ref->digest, digest, s->err);
        return rc ? rc : found(s, digest);
    }
    return sm_error_set(s->err, SM_EINVAL, "unknown kind of reference");
}

int sm_store_resolve(struct sm_imgstore *store, const struct sm_reference *ref,
    const struct sm_platform *platform, bool to_run, struct sm_image_info *info, sm_error *err)
{
    const struct search s = {store, ref, platform, to_run, info, err};
    return resolve(&s);
}

int sm_imgstore_find(struct sm_imgstore *store, const char *reference, const char *platform,
    struct sm_image_info *info, sm_error *err)
{
    auto_reference ref = NULL;
    struct sm_platform plat;
    int rc = sm_reference_parse(reference, &ref, err);
    if (rc == 0)
        rc = sm_platform_parse(platform, &plat, err);
    return rc ? rc : sm_store_resolve(store, ref, &plat, true, info, err);
}
