/* See ext4_dump.h. It reads with libext2fs and shares only the digest with what it judges, so that
 * a mistake of the builder's is not read back as it was made. */
#include "ext4_dump.h"

#include <ext2fs/ext2fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "builder/digest.h"

struct dump {
    ext2_filsys fs;
    char **first; /* by inode: the path under which it was listed */
    FILE *out;
    int failed;
};

struct entries {
    struct {
        char *name;
        ext2_ino_t ino;
    } * list;
    size_t count;
};

static int collect(ext2_ino_t dir, int entry, struct ext2_dir_entry *d, int offset, int blocksize,
    char *buf, void *arg)
{
    struct entries *e = arg;
    int len = ext2fs_dirent_name_len(d);
    if ((len == 1 && d->name[0] == '.') || (len == 2 && memcmp(d->name, "..", 2) == 0))
        return 0;
    e->list = reallocarray(e->list, e->count + 1, sizeof(*e->list));
    e->list[e->count].name = strndup(d->name, (size_t)len);
    e->list[e->count++].ino = d->inode;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void contents(struct dump *d, ext2_ino_t ino, char text[SM_DIGEST_LEN + 1])
{
    static char buf[1 << 16];
    ext2_file_t file;
    unsigned got = 0;
    struct sm_sha256 *sha = sm_sha256_new();
    if (ext2fs_file_open(d->fs, ino, 0, &file) != 0) {
        d->failed = 1;
    } else {
        while (ext2fs_file_read(file, buf, sizeof(buf), &got) == 0 && got > 0)
            sm_sha256_update(sha, buf, got);
        ext2fs_file_close(file);
    }
    sm_sha256_finish(sha, text);
    sm_sha256_free(sha);
}

static int one_xattr(char *name, char *value, size_t size, void *arg)
{
    struct dump *d = arg;
    fprintf(d->out, " xattr:%s=", name);
    for (size_t i = 0; i < size; i++)
        fprintf(d->out, "%02x", (unsigned char)value[i]);
    return 0;
}

static void target(
    struct dump *d, ext2_ino_t ino, const struct ext2_inode_large *inode, char out[4097])
{
    char block[4096] = "";
    if (inode->i_size < 60)
        memcpy(out, inode->i_block, inode->i_size);
    else {
        blk64_t phys;
        if (ext2fs_bmap2(d->fs, ino, NULL, NULL, 0, 0, NULL, &phys) != 0 ||
            io_channel_read_blk64(d->fs->io, phys, 1, block) != 0)
            d->failed = 1;
        memcpy(out, block, inode->i_size);
    }
    out[inode->i_size] = '\0';
}

static void dump_one(struct dump *d, const char *path, ext2_ino_t ino);

static void dump_dir(struct dump *d, const char *path, ext2_ino_t ino)
{
    struct entries e = {0};
    if (ext2fs_dir_iterate2(d->fs, ino, 0, NULL, collect, &e) != 0)
        d->failed = 1;
    if (e.count > 0)
        qsort(e.list, e.count, sizeof(*e.list), by_name);
    for (size_t i = 0; i < e.count; i++) {
        char *child;
        if (asprintf(&child, "%s/%s", strcmp(path, "/") == 0 ? "" : path, e.list[i].name) < 0)
            abort();
        dump_one(d, child, e.list[i].ino);
        free(child);
        free(e.list[i].name);
    }
    free(e.list);
}

static void dump_one(struct dump *d, const char *path, ext2_ino_t ino)
{
    struct ext2_inode_large inode;
    if (ext2fs_read_inode_full(d->fs, ino, (struct ext2_inode *)(void *)&inode, sizeof(inode)) !=
        0) {
        d->failed = 1;
        return;
    }
    if (d->first[ino]) {
        fprintf(d->out, "%s hardlink %s\n", path, d->first[ino]);
        return;
    }
    d->first[ino] = strdup(path);
    long long mtime = (int32_t)inode.i_mtime + ((long long)(inode.i_mtime_extra & 3) << 32);
    unsigned long long size = S_ISDIR(inode.i_mode) ? 0 : EXT2_I_SIZE(&inode);
    const char *type = S_ISREG(inode.i_mode)    ? "file"
                       : S_ISDIR(inode.i_mode)  ? "dir"
                       : S_ISLNK(inode.i_mode)  ? "symlink"
                       : S_ISCHR(inode.i_mode)  ? "char"
                       : S_ISBLK(inode.i_mode)  ? "block"
                       : S_ISFIFO(inode.i_mode) ? "fifo"
                                                : "unknown";
    fprintf(d->out, "%s %s %04o %u %u %llu %lld ", path, type, inode.i_mode & 07777,
        (unsigned)(inode.i_uid | (unsigned)inode.osd2.linux2.l_i_uid_high << 16),
        (unsigned)(inode.i_gid | (unsigned)inode.osd2.linux2.l_i_gid_high << 16), size, mtime);
    char text[4097] = "-";
    if (S_ISREG(inode.i_mode))
        contents(d, ino, text);
    else if (S_ISLNK(inode.i_mode))
        target(d, ino, &inode, text);
    else if (S_ISCHR(inode.i_mode) || S_ISBLK(inode.i_mode)) {
        unsigned v = inode.i_block[0], w = inode.i_block[1];
        snprintf(text, sizeof(text), "%u:%u", v ? v >> 8 : (w >> 8) & 0xfff,
            v ? v & 0xff : (w & 0xff) | (w >> 12 & 0xfff00));
    }
    fprintf(d->out, "%s", text);
    struct ext2_xattr_handle *handle;
    if (ext2fs_xattrs_open(d->fs, ino, &handle) == 0) {
        if (ext2fs_xattrs_read(handle) == 0)
            ext2fs_xattrs_iterate(handle, one_xattr, d);
        ext2fs_xattrs_close(&handle);
    }
    fputc('\n', d->out);
    if (S_ISDIR(inode.i_mode))
        dump_dir(d, path, ino);
}

int ext4_dump(const char *image, FILE *out)
{
    struct dump d = {.out = out};
    if (ext2fs_open(image, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &d.fs) != 0) {
        fprintf(stderr, "%s is not an ext4 image\n", image);
        return -1;
    }
    d.first = calloc(d.fs->super->s_inodes_count + 1, sizeof(*d.first));
    dump_one(&d, "/", EXT2_ROOT_INO);
    for (size_t i = 0; i <= d.fs->super->s_inodes_count; i++)
        free(d.first[i]);
    free(d.first);
    ext2fs_close_free(&d.fs);
    return d.failed ? -1 : 0;
}
