/*
 * Members of tar files. See tar_index.h.
 *
 * System calls: read, pread64, lseek, fstat, write, openat(refused).
 */
#include "builder/tar_index.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rootfs/tree.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/text.h"

enum {
    MAX_MEMBERS = 20000,
    COPY_BUFFER = 1 << 18,
};

#define MAX_UNPACKED (64ull << 30)

/* ---- the list -------------------------------------------------------------------------------- */

void sm_tar_members_clear(struct sm_tar_members *members)
{
    for (size_t i = 0; i < members->count; i++) {
        free(members->items[i].name);
        free(members->items[i].link);
    }
    free(members->items);
    *members = (struct sm_tar_members){0};
}

static int make_room(struct sm_tar_members *members, sm_error *err)
{
    if (members->count == MAX_MEMBERS)
        return sm_error_set(err, SM_ELIMIT, "the archive has more than %d members", MAX_MEMBERS);
    if (members->count < members->room)
        return 0;
    size_t room = members->room ? members->room * 2 : 64;
    struct sm_tar_member *grown = reallocarray(members->items, room, sizeof(*grown));
    if (!grown)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    members->items = grown;
    members->room = room;
    return 0;
}

int sm_tar_members_add(
    struct sm_tar_members *members, const struct sm_tar_member *member, sm_error *err)
{
    int rc = make_room(members, err);
    if (rc) {
        free(member->name);
        free(member->link);
        return rc;
    }
    members->items[members->count++] = *member;
    return 0;
}

static int compare_members(const void *a, const void *b)
{
    const struct sm_tar_member *x = a, *y = b;
    int names = strcmp(x->name, y->name);
    return names ? names : (x->offset > y->offset) - (x->offset < y->offset);
}

void sm_tar_members_sort(struct sm_tar_members *members)
{
    if (members->count > 0)
        qsort(members->items, members->count, sizeof(*members->items), compare_members);
}

/* ---- reading --------------------------------------------------------------------------------- */

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

static int add_entry(
    struct sm_tar_members *members, struct archive *a, struct archive_entry *e, sm_error *err)
{
    bool symlink = archive_entry_filetype(e) == AE_IFLNK;
    const char *hard = archive_entry_hardlink(e);
    if (!symlink && !hard && archive_entry_filetype(e) != AE_IFREG)
        return 0;
    if (archive_entry_sparse_count(e) > 0)
        return sm_error_set(
            err, SM_EUNSUPPORTED, "a member of the archive is stored as a sparse file");
    struct sm_tar_member m = {
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
    return sm_tar_members_add(members, &m, err);
}

int sm_tar_index(int fd, struct sm_tar_members *members, sm_error *err)
{
    struct archive *a = archive_read_new();
    if (!a)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    archive_read_support_format_tar(a);
    int rc = 0;
    if (archive_read_open_fd(a, fd, 65536) != ARCHIVE_OK)
        rc = not_tar(a, err);
    while (rc == 0) {
        struct archive_entry *e;
        int got = archive_read_next_header(a, &e);
        if (got == ARCHIVE_EOF)
            break;
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            rc = not_tar(a, err);
        else
            rc = add_entry(members, a, e, err);
    }
    archive_read_free(a);
    return rc;
}

/* ---- compression ----------------------------------------------------------------------------- */

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

int sm_compression_of_file(int fd, sm_error *err)
{
    unsigned char magic[SM_MAGIC_BYTES] = {0};
    if (pread(fd, magic, sizeof(magic), 0) < 0)
        return sm_error_errno(err, errno, "cannot read it");
    return sm_compression_of(magic);
}

int sm_tar_unpack(int fd, int tmp, sm_error *err)
{
    int filter = sm_compression_of_file(fd, err);
    if (filter < 0)
        return filter;
    auto_free char *buf = malloc(COPY_BUFFER);
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    if (!buf || !a) {
        archive_read_free(a);
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    archive_read_support_format_raw(a);
    archive_read_append_filter(a, filter);
    int rc = archive_read_open_fd(a, fd, 65536) == ARCHIVE_OK &&
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
    if (rc == 0 && lseek(tmp, 0, SEEK_SET) != 0)
        rc = sm_error_errno(err, errno, "cannot write a temporary file in the store");
    return rc;
}
