/*
 * Tar files as sources of blobs. A parser says where each member's bytes begin (tar_index.h), and
 * that they do so in the file is seen to here. Members are only ever read through that list: their
 * names open nothing outside of it. Links between members, which old `docker save` files have, are
 * followed within the list.
 */
#include "builder/archive.h"

#include <archive.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "builder/legacy.h"
#include "builder/parsers.h"
#include "builder/tar_index.h"
#include "image/json.h"
#include "rootfs/tree.h"
#include "util/error.h"
#include "util/text.h"

enum {
    MAX_LINKS = 8,
};

struct tar_source {
    struct sm_source source;
    int fd;
    struct sm_tar_members members; /* sorted */
};

static void free_tar(struct sm_source *source)
{
    struct tar_source *tar = (struct tar_source *)(void *)source;
    sm_tar_members_clear(&tar->members);
    sm_close(tar->fd);
    free(tar);
}

/* The last member of a name counts, as it does for tar. */
static const struct sm_tar_member *find_member(const struct tar_source *tar, const char *name)
{
    const struct sm_tar_member *items = tar->members.items;
    for (int links = 0; links < MAX_LINKS; links++) {
        size_t first = 0, end = tar->members.count; /* what comes after the name is from end on */
        while (first < end) {
            size_t middle = (first + end) / 2;
            if (strcmp(items[middle].name, name) <= 0)
                first = middle + 1;
            else
                end = middle;
        }
        const struct sm_tar_member *found = end > 0 ? &items[end - 1] : NULL;
        if (!found || strcmp(found->name, name) != 0)
            return NULL;
        if (!found->link)
            return found;
        name = found->link;
    }
    return NULL;
}

static int open_member(struct sm_source *source, const struct sm_descriptor *d, const char *name,
    struct sm_blob *blob, sm_error *err)
{
    const struct tar_source *tar = (const struct tar_source *)(const void *)source;
    char path[SM_TREE_MAX_PATH];
    snprintf(path, sizeof(path), "%s%s", name ? "" : "blobs/sha256/", name ? name : d->digest + 7);
    sm_path_clean(path);
    const struct sm_tar_member *m = find_member(tar, path);
    if (!m)
        return sm_error_set(err, SM_ECORRUPT, "the archive has no %.200s", path);
    if (!name && m->size != d->size)
        return sm_error_set(err, SM_ECORRUPT,
            "the blob %s has %llu bytes and not %llu: it is damaged", d->digest,
            (unsigned long long)m->size, (unsigned long long)d->size);
    int fd = fcntl(tar->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return sm_error_errno(err, errno, "cannot open %.200s of the archive", path);
    *blob = (struct sm_blob){.fd = fd, .offset = m->offset, .size = m->size};
    return 0;
}

/* What a parser says, or without one what we see ourselves. */
static int list_members(
    struct sm_parsers *parsers, int fd, int tmp, struct sm_tar_members *members, sm_error *err)
{
    if (parsers)
        return sm_parsers_index(parsers, fd, tmp, members, err);
    int rc = tmp < 0 ? 0 : sm_tar_unpack(fd, tmp, err);
    if (rc == 0)
        rc = sm_tar_index(tmp < 0 ? fd : tmp, members, err);
    sm_tar_members_sort(members);
    return rc;
}

/* All bytes of a member must be there. */
static int check_members(const struct tar_source *tar, sm_error *err)
{
    struct stat st;
    if (fstat(tar->fd, &st) != 0)
        return sm_error_errno(err, errno, "cannot look at it");
    for (size_t i = 0; i < tar->members.count; i++) {
        const struct sm_tar_member *m = &tar->members.items[i];
        uint64_t end;
        if (!m->link &&
            (__builtin_add_overflow(m->offset, m->size, &end) || end > (uint64_t)st.st_size))
            return sm_error_set(err, SM_ECORRUPT, "it is cut off in %.200s", m->name);
    }
    return 0;
}

/* Lists what is in the file. A compressed archive is unpacked into a file that has no name, since
 * its members are read in the order in which the image needs them. */
static int index_file(
    struct tar_source *tar, struct sm_imgstore *store, struct sm_parsers *parsers, sm_error *err)
{
    auto_fd tmp = -1;
    int filter = sm_compression_of_file(tar->fd, err);
    if (filter < 0)
        return filter;
    if (filter != ARCHIVE_FILTER_NONE) {
        tmp = open(sm_imgstore_path(store), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (tmp < 0)
            return sm_error_errno(err, errno, "cannot make a temporary file in the store");
    }
    int rc = list_members(parsers, tar->fd, tmp, &tar->members, err);
    if (rc == 0 && tmp >= 0) {
        sm_close(tar->fd);
        tar->fd = sm_steal_fd(&tmp);
    }
    return rc ? rc : check_members(tar, err);
}

static int open_tar(struct sm_imgstore *store, struct sm_parsers *parsers, const char *path,
    struct tar_source **out, sm_error *err)
{
    struct tar_source *tar = calloc(1, sizeof(*tar));
    if (!tar)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    tar->source = (struct sm_source){.open = open_member, .free = free_tar};
    tar->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    int rc = 0;
    if (tar->fd < 0 || fstat(tar->fd, &st) != 0)
        rc = sm_error_errno(err, errno, "cannot open it");
    else if (!S_ISREG(st.st_mode))
        rc = sm_error_set(err, SM_EINVAL, "it is not a regular file");
    if (rc == 0)
        rc = index_file(tar, store, parsers, err);
    if (rc)
        free_tar(&tar->source);
    else
        *out = tar;
    return rc;
}

/* Reads the JSON member that all begins with. An array is wrapped into an object. */
static int read_root(
    struct tar_source *tar, const char *name, const char *wrap, json_t **root, sm_error *err)
{
    auto_free char *data = NULL;
    auto_free char *wrapped = NULL;
    size_t size;
    struct sm_descriptor any = {0};
    int rc = sm_source_read(&tar->source, &any, name, name, &data, &size, err);
    if (rc)
        return rc;
    if (!wrap)
        return sm_json_parse(data, size, name, root, err);
    if (strlen(data) != size)
        return sm_error_set(err, SM_ECORRUPT, "%s is not valid JSON", name);
    int n = asprintf(&wrapped, "{\"%s\": %s}", wrap, data);
    if (n < 0) {
        wrapped = NULL;
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    return sm_json_parse(wrapped, (size_t)n, name, root, err);
}

/* manifest.json, or what it would be where there is only what came before it. */
static int read_manifest(struct tar_source *tar, json_t **manifest, sm_error *err)
{
    auto_json *repositories = NULL;
    if (!find_member(tar, "manifest.json") && find_member(tar, "repositories")) {
        int rc = read_root(tar, "repositories", NULL, &repositories, err);
        return rc ? rc : sm_legacy_manifest(&tar->source, repositories, manifest, err);
    }
    int rc = read_root(tar, "manifest.json", "manifest", manifest, err);
    if (rc)
        return rc;
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(*manifest, "manifest"), i, entry)(void)
        json_object_del(entry, SM_LEGACY_CONFIG); /* which only we say */
    return 0;
}

static int read_index(struct tar_source *tar, json_t **index, sm_error *err)
{
    return read_root(tar, "index.json", NULL, index, err);
}

typedef int read_fn(struct tar_source *tar, json_t **root, sm_error *err);

/* read NULL: what there is, told in *is_oci. */
static int open_archive(struct sm_imgstore *store, struct sm_parsers *parsers, const char *path,
    read_fn *read, bool *is_oci, struct sm_source **source, json_t **root, sm_error *err)
{
    struct tar_source *tar = NULL;
    int rc = open_tar(store, parsers, path, &tar, err);
    if (rc)
        return sm_error_prefix(err, rc, "archive %s", path);
    if (!read) {
        *is_oci = find_member(tar, "index.json") != NULL;
        read = *is_oci ? read_index : read_manifest;
    }
    rc = read(tar, root, err);
    if (rc) {
        free_tar(&tar->source);
        return sm_error_prefix(err, rc, "archive %s", path);
    }
    *source = &tar->source;
    return 0;
}

int sm_oci_archive_open(struct sm_imgstore *store, struct sm_parsers *parsers, const char *path,
    struct sm_source **source, json_t **index, sm_error *err)
{
    return open_archive(store, parsers, path, read_index, NULL, source, index, err);
}

int sm_docker_archive_open(struct sm_imgstore *store, struct sm_parsers *parsers, const char *path,
    struct sm_source **source, json_t **manifest, sm_error *err)
{
    return open_archive(store, parsers, path, read_manifest, NULL, source, manifest, err);
}

int sm_any_archive_open(struct sm_imgstore *store, struct sm_parsers *parsers, const char *path,
    struct sm_source **source, json_t **root, bool *is_oci, sm_error *err)
{
    return open_archive(store, parsers, path, NULL, is_oci, source, root, err);
}
