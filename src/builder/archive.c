/*
 * Tar files as sources of blobs. libarchive walks over the members' headers (skipping contents by
 * seeking) and we note where each one's bytes begin. Members are only ever read through that list:
 * their names open nothing outside of it. Links between members, which old `docker save` files
 * have, are followed within the list.
 */
#include "builder/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "builder/legacy.h"
#include "image/json.h"
#include "rootfs/tree.h"
#include "util/bytes.h"
#include "util/error.h"
#include "util/file.h"
#include "util/text.h"

enum {
    MAX_MEMBERS = 20000,
    MAX_LINKS = 8,
    COPY_BUFFER = 1 << 18,
};

#define MAX_UNPACKED (64ull << 30)

struct member {
    char *name; /* clean */
    char *link; /* clean name of what it links to, or NULL */
    uint64_t offset, size;
};

struct tar_source {
    struct sm_source source;
    int fd;
    struct member *members; /* by name, those of one name as they come */
    size_t count;
};

static void free_tar(struct sm_source *source)
{
    struct tar_source *tar = (struct tar_source *)(void *)source;
    for (size_t i = 0; i < tar->count; i++) {
        free(tar->members[i].name);
        free(tar->members[i].link);
    }
    free(tar->members);
    sm_close(tar->fd);
    free(tar);
}

/* The last member of a name counts, as it does for tar. */
static const struct member *find_member(const struct tar_source *tar, const char *name)
{
    for (int links = 0; links < MAX_LINKS; links++) {
        size_t first = 0, end = tar->count; /* what comes after the name is from end on */
        while (first < end) {
            size_t middle = (first + end) / 2;
            if (strcmp(tar->members[middle].name, name) <= 0)
                first = middle + 1;
            else
                end = middle;
        }
        const struct member *found = end > 0 ? &tar->members[end - 1] : NULL;
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
    const struct member *m = find_member(tar, path);
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

static int not_tar(struct archive *a, sm_error *err)
{
    const char *why = archive_error_string(a);
    return sm_error_set(
        err, SM_ECORRUPT, "not a valid tar archive: %s", why ? why : "unknown error");
}

static char *clean_copy(const char *text)
{
    char *copy = text && strlen(text) < SM_TREE_MAX_PATH ? strdup(text) : NULL;
    if (copy)
        sm_path_clean(copy);
    return copy;
}

/* The clean path of a symbolic link's target, which counts from the directory of the link. */
static char *link_target(const char *name, const char *target)
{
    const char *slash = strrchr(name, '/');
    char *path = NULL;
    if (asprintf(&path, "%.*s/%s", (int)(slash ? slash - name : 0), name, target) < 0)
        return NULL;
    sm_path_clean(path);
    return path;
}

static int add_member(
    struct tar_source *tar, struct archive *a, struct archive_entry *e, size_t *room, sm_error *err)
{
    bool symlink = archive_entry_filetype(e) == AE_IFLNK;
    const char *hard = archive_entry_hardlink(e);
    if (!symlink && !hard && archive_entry_filetype(e) != AE_IFREG)
        return 0;
    if (archive_entry_sparse_count(e) > 0)
        return sm_error_set(
            err, SM_EUNSUPPORTED, "a member of the archive is stored as a sparse file");
    if (tar->count == MAX_MEMBERS)
        return sm_error_set(err, SM_ELIMIT, "the archive has more than %d members", MAX_MEMBERS);
    if (tar->count == *room) {
        *room = *room ? *room * 2 : 64;
        struct member *grown = reallocarray(tar->members, *room, sizeof(*grown));
        if (!grown)
            return sm_error_set(err, SM_ENOMEM, "out of memory");
        tar->members = grown;
    }
    struct member m = {
        .name = clean_copy(archive_entry_pathname(e)),
        .offset = (uint64_t)archive_filter_bytes(a, 0),
        .size = (uint64_t)archive_entry_size(e),
    };
    if (!m.name)
        return sm_error_set(err, SM_ECORRUPT, "a member of the archive has no valid name");
    if (hard)
        m.link = clean_copy(hard);
    else if (symlink)
        m.link = link_target(m.name, archive_entry_symlink(e) ? archive_entry_symlink(e) : "");
    if ((hard || symlink) && !m.link) {
        free(m.name);
        return sm_error_set(err, SM_ECORRUPT, "a member of the archive links to nothing valid");
    }
    tar->members[tar->count++] = m;
    return 0;
}

static int compare_members(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    int names = strcmp(x->name, y->name);
    return names ? names : (x->offset > y->offset) - (x->offset < y->offset);
}

static int index_tar(struct tar_source *tar, sm_error *err)
{
    struct archive *a = archive_read_new();
    if (!a)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    archive_read_support_format_tar(a);
    size_t room = 0;
    int rc = 0;
    if (archive_read_open_fd(a, tar->fd, 65536) != ARCHIVE_OK)
        rc = not_tar(a, err);
    while (rc == 0) {
        struct archive_entry *e;
        int got = archive_read_next_header(a, &e);
        if (got == ARCHIVE_EOF)
            break;
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            rc = not_tar(a, err);
        else
            rc = add_member(tar, a, e, &room, err);
    }
    archive_read_free(a);
    struct stat st;
    if (rc == 0 && fstat(tar->fd, &st) == 0)
        for (size_t i = 0; i < tar->count; i++)
            if (!tar->members[i].link &&
                tar->members[i].offset + tar->members[i].size > (uint64_t)st.st_size)
                return sm_error_set(
                    err, SM_ECORRUPT, "it is cut off in %.200s", tar->members[i].name);
    if (tar->count > 0)
        qsort(tar->members, tar->count, sizeof(*tar->members), compare_members);
    return rc;
}

int sm_compression_of(const unsigned char magic[SM_MAGIC_BYTES])
{
    uint32_t word = sm_load_le32(magic);
    if (magic[0] == 0x1f && magic[1] == 0x8b)
        return ARCHIVE_FILTER_GZIP;
    if (word == 0xfd2fb528 || (word & 0xfffffff0) == 0x184d2a50)
        return ARCHIVE_FILTER_ZSTD;
    if (memcmp(magic,
            "\xfd"
            "7zXZ",
            SM_MAGIC_BYTES) == 0)
        return ARCHIVE_FILTER_XZ;
    if (memcmp(magic, "BZh", 3) == 0 && magic[3] >= '1' && magic[3] <= '9')
        return ARCHIVE_FILTER_BZIP2;
    return ARCHIVE_FILTER_NONE;
}

/* A compressed archive is unpacked into a file that has no name, since its members are read in the
 * order in which the image needs them. */
static int unpack(struct sm_imgstore *store, int *fd, sm_error *err)
{
    unsigned char magic[SM_MAGIC_BYTES] = {0};
    if (pread(*fd, magic, sizeof(magic), 0) < 0)
        return sm_error_errno(err, errno, "cannot read it");
    int filter = sm_compression_of(magic);
    if (filter == ARCHIVE_FILTER_NONE)
        return 0;
    auto_fd tmp = open(sm_imgstore_path(store), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    auto_free char *buf = malloc(COPY_BUFFER);
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    if (tmp < 0 || !buf || !a) {
        archive_read_free(a);
        return sm_error_errno(err, errno, "cannot make a temporary file in the store");
    }
    archive_read_support_format_raw(a);
    archive_read_append_filter(a, filter);
    int rc = archive_read_open_fd(a, *fd, 65536) == ARCHIVE_OK &&
                     archive_read_next_header(a, &e) == ARCHIVE_OK
                 ? 0
                 : not_tar(a, err);
    uint64_t total = 0;
    while (rc == 0) {
        la_ssize_t n = archive_read_data(a, buf, COPY_BUFFER);
        if (n == 0)
            break;
        if (n < 0)
            rc = not_tar(a, err);
        else if ((total += (uint64_t)n) > MAX_UNPACKED)
            rc = sm_error_set(
                err, SM_ELIMIT, "it unpacks to more than %llu GiB", MAX_UNPACKED >> 30);
        else if (sm_write_all(tmp, buf, (size_t)n) != 0)
            rc = sm_error_errno(err, errno, "cannot write a temporary file in the store");
    }
    archive_read_free(a);
    if (rc == 0) {
        lseek(tmp, 0, SEEK_SET);
        sm_close(*fd);
        *fd = sm_steal_fd(&tmp);
    }
    return rc;
}

static int open_tar(
    struct sm_imgstore *store, const char *path, struct tar_source **out, sm_error *err)
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
        rc = unpack(store, &tar->fd, err);
    if (rc == 0)
        rc = index_tar(tar, err);
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
static int open_archive(struct sm_imgstore *store, const char *path, read_fn *read, bool *is_oci,
    struct sm_source **source, json_t **root, sm_error *err)
{
    struct tar_source *tar = NULL;
    int rc = open_tar(store, path, &tar, err);
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

int sm_oci_archive_open(struct sm_imgstore *store, const char *path, struct sm_source **source,
    json_t **index, sm_error *err)
{
    return open_archive(store, path, read_index, NULL, source, index, err);
}

int sm_docker_archive_open(struct sm_imgstore *store, const char *path, struct sm_source **source,
    json_t **manifest, sm_error *err)
{
    return open_archive(store, path, read_manifest, NULL, source, manifest, err);
}

int sm_any_archive_open(struct sm_imgstore *store, const char *path, struct sm_source **source,
    json_t **root, bool *is_oci, sm_error *err)
{
    return open_archive(store, path, NULL, is_oci, source, root, err);
}
