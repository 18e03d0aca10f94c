/*
 * A layer's tar archive becomes a list of changes. libarchive reads the archive (every dialect of
 * tar, sparse files, PAX), we bound what it says. Contents of regular files are written to blocks
 * as they come. Nothing here looks at the tree: what a path means is decided when all changes are
 * known.
 *
 * System calls: openat(refused). (libarchive converts names; iconv looks for its tables where no
 * parent has, and does without.)
 */
#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "rootfs/rootfs_internal.h"
#include "util/bytes.h"
#include "util/error.h"
#include "util/text.h"

enum {
    MAX_XATTRS = 3900,  /* bytes of all of a file's: they must fit into one block */
    XATTR_HEAD = 24,    /* what each takes beside name and value */
    MAX_SPARSE = 65536, /* data runs of one file */
};

#define MAX_FILE_SIZE (1ull << 43) /* logical; what it holds is bounded by the image's size */

struct source {
    sm_rootfs_read_fn *read;
    void *arg;
    uint64_t *total, limit;
    int rc;
    sm_error *err;
};

struct reader {
    struct source *source;
    struct sm_rootfs *rootfs;
    struct sm_changes *changes;
    struct archive *tar;
    struct archive_entry *entry;
    sm_error *err;
};

static ssize_t read_source(struct archive *tar, void *arg, const void **data)
{
    struct source *s = arg;
    if (s->rc)
        return -1;
    ssize_t n = s->read(s->arg, data, s->err);
    if (n > 0 && (*s->total += (uint64_t)n) > s->limit)
        n = sm_error_set(s->err, SM_ELIMIT, "the layers unpack to more than %llu MiB",
            (unsigned long long)s->limit >> 20);
    if (n < 0) {
        s->rc = (int)n;
        archive_set_error(tar, EIO, "read failed");
        return -1;
    }
    return n;
}

/* ---- the parts of an entry ----------------------------------------------------------------- */

static int bad(struct reader *r, enum sm_code code, const char *path, const char *why)
{
    return sm_error_set(r->err, code, "the layer's entry %.200s %s", path, why);
}

/* trusted.overlay.* is where an overlay keeps notes; an image's would be taken for them. */
static bool keeps_xattr(const char *name)
{
    static const char *const known[] = {"user.", "trusted.", "security.", "system.posix_acl_"};
    static const char overlay[] = "trusted.overlay.";
    bool keep = false;
    for (size_t i = 0; name && i < SM_ARRAY_LEN(known); i++)
        keep = keep || strncmp(name, known[i], strlen(known[i])) == 0;
    return keep && strncmp(name, overlay, strlen(overlay)) != 0;
}

static int read_xattrs(struct reader *r, struct sm_inode *inode, const char *path)
{
    size_t total = 0;
    const char *name;
    const void *value;
    size_t size;
    archive_entry_xattr_reset(r->entry);
    while (archive_entry_xattr_next(r->entry, &name, &value, &size) == ARCHIVE_OK) {
        if (!keeps_xattr(name))
            continue;
        size_t len = strlen(name);
        if (len > SM_TREE_MAX_NAME || size > MAX_XATTRS || total > MAX_XATTRS)
            return bad(r, SM_ELIMIT, path, "has extended attributes of more than 3900 bytes");
        struct sm_xattr *x = malloc(sizeof(*x) + len + 1 + size);
        if (!x)
            return sm_error_set(r->err, SM_ENOMEM, "out of memory");
        x->name = (char *)(x + 1);
        memcpy(x->name, name, len + 1);
        x->value = (unsigned char *)x->name + len + 1;
        if (size)
            memcpy(x->value, value, size);
        x->size = (uint32_t)size;
        total += len + size + XATTR_HEAD;
        struct sm_xattr **at = &inode->xattrs;
        while (*at && strcmp((*at)->name, name) < 0)
            at = &(*at)->next;
        x->next = *at;
        if (*at && strcmp((*at)->name, name) == 0) { /* the later one counts */
            total -= len + (*at)->size + XATTR_HEAD;
            x->next = (*at)->next;
            free(*at);
        }
        *at = x;
    }
    if (total > MAX_XATTRS)
        return bad(r, SM_ELIMIT, path, "has extended attributes of more than 3900 bytes");
    return 0;
}

/* The permissions. Of an access ACL libarchive puts the owning group's rights in the place of the
 * group bits, which are the mask's where there is one (acl(5)), as the archive's header has
 * them. */
static uint32_t read_permissions(struct reader *r)
{
    uint32_t mode = archive_entry_perm(r->entry) & 07777;
    int type, rights, tag, id;
    const char *name;
    if (archive_entry_acl_reset(r->entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS) == 0)
        return mode;
    while (archive_entry_acl_next(r->entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, &type, &rights, &tag,
               &id, &name) == ARCHIVE_OK)
        if (tag == ARCHIVE_ENTRY_ACL_MASK)
            mode = (mode & ~070u) | (uint32_t)(rights & 7) << 3;
    return mode;
}

/* PAX has "-5.25" for 5.25 s before 1970; libarchive gives the parts as they stand there. (Of
 * "-0.25" it loses the sign, for which there is no remedy.) */
static void read_time(struct reader *r, struct sm_inode *inode)
{
    inode->mtime = archive_entry_mtime(r->entry);
    long nsec = archive_entry_mtime_nsec(r->entry);
    inode->mtime_nsec = nsec >= 0 && nsec < 1000000000 ? (uint32_t)nsec : 0;
    if (inode->mtime < 0 && inode->mtime_nsec > 0 && inode->mtime > INT64_MIN) {
        inode->mtime--;
        inode->mtime_nsec = 1000000000 - inode->mtime_nsec;
    }
}

static int read_attributes(struct reader *r, struct sm_inode *inode, const char *path)
{
    int64_t uid = archive_entry_uid(r->entry), gid = archive_entry_gid(r->entry);
    if (uid < 0 || uid > UINT32_MAX || gid < 0 || gid > UINT32_MAX)
        return bad(r, SM_ECORRUPT, path, "has an owner or a group that is out of range");
    inode->uid = (uint32_t)uid;
    inode->gid = (uint32_t)gid;
    inode->mode |= read_permissions(r);
    if (archive_entry_mtime_is_set(r->entry))
        read_time(r, inode);
    return read_xattrs(r, inode, path);
}

/* The runs of a regular file that hold data, in whole blocks; one run for what is not sparse. */
static int plan_extents(struct reader *r, struct sm_inode *inode, const char *path)
{
    int count = archive_entry_sparse_reset(r->entry);
    if (count > MAX_SPARSE)
        return bad(r, SM_ELIMIT, path, "is a sparse file of more than 65536 pieces");
    size_t room = count > 0 ? (size_t)count : 1;
    struct sm_extent *runs = calloc(room, sizeof(*runs));
    if (!runs)
        return sm_error_set(r->err, SM_ENOMEM, "out of memory");
    inode->extents = runs;
    uint64_t whole = sm_align_up(inode->size, SM_BLOCK_SIZE) / SM_BLOCK_SIZE;
    if (count == 0) {
        if (whole > r->rootfs->space.max)
            return bad(r, SM_ELIMIT, path, "is larger than the image may be");
        runs[0].count = (uint32_t)whole;
        inode->extent_count = 1;
        return 0;
    }
    int64_t offset, length;
    uint64_t end = 0;
    uint32_t n = 0;
    while (archive_entry_sparse_next(r->entry, &offset, &length) == ARCHIVE_OK) {
        if (offset < 0 || length < 0 || (uint64_t)offset < end || n == room ||
            (uint64_t)offset > inode->size || (uint64_t)length > inode->size - (uint64_t)offset)
            return bad(r, SM_ECORRUPT, path, "has a map of sparse data that makes no sense");
        end = (uint64_t)offset + (uint64_t)length;
        if (length == 0)
            continue;
        uint64_t first = (uint64_t)offset / SM_BLOCK_SIZE, last = (end - 1) / SM_BLOCK_SIZE;
        struct sm_extent *before = n ? &runs[n - 1] : NULL;
        if (before && first <= (uint64_t)before->logical + before->count)
            before->count = (uint32_t)(last + 1 - before->logical);
        else
            runs[n++] = (struct sm_extent){(uint32_t)first, 0, (uint32_t)(last + 1 - first)};
    }
    inode->extent_count = n;
    return 0;
}

/* One run of blocks for all pieces. */
static int alloc_extents(struct reader *r, struct sm_inode *inode)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < inode->extent_count; i++)
        total += inode->extents[i].count;
    if (total == 0)
        return 0;
    uint32_t start = 0;
    int rc = total > r->rootfs->space.max
                 ? sm_error_set(r->err, SM_ELIMIT, "the image's files need more space than allowed")
                 : sm_space_alloc(&r->rootfs->space, (uint32_t)total, &start, r->err);
    if (rc) {
        inode->extent_count = 0; /* nothing to give back */
        return rc;
    }
    for (uint32_t i = 0; i < inode->extent_count; i++) {
        inode->extents[i].phys = start;
        start += inode->extents[i].count;
    }
    return 0;
}

/* Writes a piece of contents to where the extents say. */
static int put_data(struct reader *r, const struct sm_inode *inode, uint32_t *at, uint64_t offset,
    const char *data, size_t size)
{
    while (size > 0) {
        uint64_t block = offset / SM_BLOCK_SIZE;
        while (*at < inode->extent_count &&
               block >= (uint64_t)inode->extents[*at].logical + inode->extents[*at].count)
            (*at)++;
        if (*at == inode->extent_count || block < inode->extents[*at].logical)
            return sm_error_set(
                r->err, SM_ECORRUPT, "it has data where its sparse map says none is");
        const struct sm_extent *e = &inode->extents[*at];
        uint64_t in = offset - (uint64_t)e->logical * SM_BLOCK_SIZE;
        size_t n = (size_t)SM_MIN((uint64_t)size, (uint64_t)e->count * SM_BLOCK_SIZE - in);
        int rc = sm_space_write(
            &r->rootfs->space, (uint64_t)e->phys * SM_BLOCK_SIZE + in, data, n, r->err);
        if (rc)
            return rc;
        data += n;
        offset += n;
        size -= n;
    }
    return 0;
}

/* Where the bytes could not be read that is what is told. */
static int tar_failed(struct reader *r)
{
    if (r->source->rc)
        return r->source->rc;
    const char *why = archive_error_string(r->tar);
    return sm_error_set(r->err, SM_ECORRUPT, "the layer is not a valid tar archive: %s",
        why ? why : "unknown error");
}

static int read_contents(struct reader *r, struct sm_inode *inode, const char *path)
{
    int64_t size = archive_entry_size(r->entry);
    if (size < 0 || (uint64_t)size > MAX_FILE_SIZE)
        return bad(r, SM_ELIMIT, path, "is larger than 8 TiB");
    inode->size = (uint64_t)size;
    if (size == 0)
        return 0;
    int rc = plan_extents(r, inode, path);
    if (rc) {
        inode->extent_count = 0;
        return rc;
    }
    rc = alloc_extents(r, inode);
    uint32_t at = 0;
    uint64_t end = 0;
    while (rc == 0) {
        const void *data;
        size_t n;
        int64_t offset;
        int got = archive_read_data_block(r->tar, &data, &n, &offset);
        if (got == ARCHIVE_EOF)
            break;
        if (got != ARCHIVE_OK)
            return tar_failed(r);
        if (n == 0)
            continue;
        if ((uint64_t)offset < end || (uint64_t)offset > inode->size ||
            n > inode->size - (uint64_t)offset)
            return bad(r, SM_ECORRUPT, path, "has data outside of its size");
        end = (uint64_t)offset + n;
        rc = put_data(r, inode, &at, (uint64_t)offset, data, n);
    }
    return rc ? sm_error_prefix(r->err, rc, "the layer's entry %.200s", path) : 0;
}

static int read_target(struct reader *r, struct sm_inode *inode, const char *path)
{
    const char *target = archive_entry_symlink(r->entry);
    if (!target || !*target)
        return bad(r, SM_ECORRUPT, path, "is a symbolic link to nothing");
    if (strlen(target) >= SM_BLOCK_SIZE)
        return bad(r, SM_ELIMIT, path, "is a symbolic link of more than 4095 bytes");
    inode->target = strdup(target);
    inode->size = strlen(target);
    inode->mode |= 0777;
    return inode->target ? 0 : sm_error_set(r->err, SM_ENOMEM, "out of memory");
}

/* ---- changes ------------------------------------------------------------------------------- */

static struct sm_change *add_change(struct reader *r, const char *path, const char *link_to)
{
    size_t n = strlen(path), m = link_to ? strlen(link_to) + 1 : 0;
    struct sm_change *c = calloc(1, sizeof(*c) + n + 1 + m);
    if (!c) {
        sm_error_set(r->err, SM_ENOMEM, "out of memory");
        return NULL;
    }
    memcpy(c->path, path, n + 1);
    if (link_to) {
        c->link_to = c->path + n + 1;
        memcpy(c->link_to, link_to, m);
    }
    *r->changes->last = c;
    r->changes->last = &c->next;
    r->changes->count++;
    return c;
}

static const char whiteout_prefix[] = ".wh.";

/* Whether the path is a whiteout; *rc tells how noting it went. Names that begin with ".wh..wh."
 * but for the opaque marker are leftovers of AUFS that mean nothing. */
static bool read_whiteout(struct reader *r, char *path, int *rc)
{
    char *slash = strrchr(path, '/');
    char *name = slash ? slash + 1 : path;
    if (strncmp(name, whiteout_prefix, 4) != 0)
        return false;
    const char *hidden = name + 4;
    bool opaque = strcmp(hidden, ".wh..opq") == 0;
    if (strncmp(hidden, whiteout_prefix, 4) == 0 && !opaque)
        return true;
    if (!*hidden || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0) {
        *rc = bad(r, SM_ECORRUPT, path, "is a whiteout without a valid name");
        return true;
    }
    if (opaque)
        *(slash ? slash : path) = '\0';
    else
        memmove(name, hidden, strlen(hidden) + 1);
    struct sm_change *c = add_change(r, path, NULL);
    if (c) {
        c->whiteout = true;
        c->opaque = opaque;
    } else {
        *rc = -SM_ENOMEM;
    }
    return true;
}

/* A path as the archive has it, cleaned; malloc'ed. */
static int take_path(struct reader *r, const char *text, const char *utf8, char **out)
{
    if (!text)
        text = utf8;
    if (!text)
        return sm_error_set(r->err, SM_ECORRUPT, "an entry of the layer has no valid name");
    if (strlen(text) > SM_TREE_MAX_PATH)
        return sm_error_set(
            r->err, SM_ELIMIT, "the path %.60s... is longer than %d bytes", text, SM_TREE_MAX_PATH);
    *out = strdup(text);
    if (!*out)
        return sm_error_set(r->err, SM_ENOMEM, "out of memory");
    if (!sm_path_clean(*out))
        return bad(r, SM_ECORRUPT, text, "leads out of the image's root by \"..\"");
    return 0;
}

static int read_by_type(struct reader *r, struct sm_inode *inode, const char *path)
{
    switch (inode->mode & S_IFMT) {
    case S_IFREG:
        return read_contents(r, inode, path);
    case S_IFLNK:
        return read_target(r, inode, path);
    case S_IFCHR:
    case S_IFBLK: {
        uint64_t major = archive_entry_rdevmajor(r->entry),
                 minor = archive_entry_rdevminor(r->entry);
        if (major >= 1u << 12 || minor >= 1u << 20)
            return bad(r, SM_ECORRUPT, path, "is a device whose number is out of range");
        inode->major = (uint32_t)major;
        inode->minor = (uint32_t)minor;
        return 0;
    }
    case S_IFDIR:
    case S_IFIFO:
        return 0;
    default:
        return bad(r, SM_EUNSUPPORTED, path, "is of an unknown type");
    }
}

static int read_entry(struct reader *r)
{
    auto_free char *path = NULL;
    int rc = take_path(
        r, archive_entry_pathname(r->entry), archive_entry_pathname_utf8(r->entry), &path);
    if (rc || read_whiteout(r, path, &rc))
        return rc;
    if (archive_entry_hardlink(r->entry) || archive_entry_hardlink_utf8(r->entry)) {
        auto_free char *target = NULL;
        rc = take_path(
            r, archive_entry_hardlink(r->entry), archive_entry_hardlink_utf8(r->entry), &target);
        if (rc == 0 && !add_change(r, path, target))
            rc = -SM_ENOMEM;
        return rc;
    }
    struct sm_change *c = add_change(r, path, NULL);
    if (!c)
        return -SM_ENOMEM;
    c->inode = sm_inode_new(archive_entry_filetype(r->entry));
    if (!c->inode)
        return sm_error_set(r->err, SM_ENOMEM, "out of memory");
    rc = read_attributes(r, c->inode, path);
    return rc ? rc : read_by_type(r, c->inode, path);
}

static int read_entries(struct reader *r)
{
    while (true) {
        int got = archive_read_next_header(r->tar, &r->entry);
        if (got == ARCHIVE_EOF)
            return 0;
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
            return tar_failed(r);
        /* Each change is a name at most: what is too many for the tree is too many here. */
        if (r->changes->count >= 2 * r->rootfs->limits.files)
            return sm_error_set(r->err, SM_ELIMIT, "the layer has more than %zu entries",
                2 * r->rootfs->limits.files);
        int rc = read_entry(r);
        if (rc)
            return rc;
    }
}

int sm_layer_read(struct sm_rootfs *rootfs, sm_rootfs_read_fn *read, void *arg,
    struct sm_changes *changes, sm_error *err)
{
    struct source source = {read, arg, &rootfs->tar_bytes, rootfs->limits.bytes * 2, 0, err};
    struct archive *tar = archive_read_new();
    if (!tar)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    struct reader r = {
        .source = &source, .rootfs = rootfs, .changes = changes, .tar = tar, .err = err};
    archive_read_support_format_tar(tar);
    archive_read_support_format_empty(tar);
    int rc;
    if (archive_read_open2(tar, &source, NULL, read_source, NULL, NULL) != ARCHIVE_OK)
        rc = tar_failed(&r);
    else
        rc = read_entries(&r);
    /* Behind the end of the archive there is padding, which the digests cover. After nonsense the
     * rest is read too: when the digest turns out wrong, that is the better word for what
     * happened. */
    sm_error first = err ? *err : (sm_error){0};
    const void *rest;
    while (
        (rc == 0 || rc == -SM_ECORRUPT) && source.rc == 0 && read_source(tar, &source, &rest) > 0)
        ;
    archive_read_free(tar);
    if (source.rc)
        return source.rc;
    if (err)
        *err = first;
    return rc;
}
