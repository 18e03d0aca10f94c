/*
 * The file system's metadata, written by libext2fs around the contents that are in place.
 *
 * Guests map the file by DAX, and reading metadata is what costs them: so there is as little of it
 * as there can be (no journal, no checksums, no backups, exactly as many inodes as files) and what
 * is used together is close together: the inodes of directories first, breadth-first, then each
 * directory's files; all inode tables, bitmaps and directory blocks in one run (flex_bg allows
 * that), which is the 2 MiB at the front of the image where it fits and its end where not.
 *
 * Everything is a function of the tree: times come from it, the UUID and the hash seed from the
 * caller, names are in byte order.
 *
 * System calls: getuid, geteuid, getgid, getegid, prctl(PR_GET_DUMPABLE), ioctl(BLKDISCARDZEROES),
 * fcntl(F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL), fstat, ftruncate, pread64, pwrite64, lseek,
 * read, write, fsync, close, fadvise64.
 */
#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rootfs/ext4_dir.h"
#include "rootfs/rootfs_internal.h"
#include "util/bytes.h"
#include "util/error.h"

enum {
    BLOCKS_PER_GROUP = 8 * SM_BLOCK_SIZE,
    INODE_SIZE = 256,
    INODES_PER_BLOCK = SM_BLOCK_SIZE / INODE_SIZE,
    MAX_INODES_PER_GROUP = 8 * SM_BLOCK_SIZE,
    DESCS_PER_BLOCK = SM_BLOCK_SIZE / 32,
    LAST_GROUP_SPARE =
        64, /* libext2fs drops a last group that has not this much beside its tables */
    MAX_LINKS = 65000,
    INLINE_EXTENTS = 4,
    MAX_EXTENT = 32768, /* blocks of one extent on disk */
};

struct layout {
    struct sm_rootfs *rootfs;
    struct sm_node **dirs; /* breadth-first, the root first */
    size_t dir_count, dir_room;
    struct sm_inode **files; /* the inode with number first_file + i */
    size_t file_count, file_room;
    uint32_t first_file;
    uint32_t dir_blocks, link_blocks, spare_blocks;
    uint32_t total, groups;  /* blocks of the image, groups of it */
    uint32_t meta, meta_end; /* the run that the metadata takes */
    ext2_filsys fs;
    sm_error *err;
};

static int failed(struct layout *l, errcode_t code, const char *what)
{
    int sys = code > 0 && code < 256 ? (int)code : 0;
    if (sys)
        return sm_error_errno(l->err, sys, "cannot write the root filesystem's %s", what);
    return sm_error_set(
        l->err, SM_EIO, "cannot write the root filesystem's %s: %s", what, error_message(code));
}

/* ---- the order of things ------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const struct sm_node *x = *(struct sm_node *const *)a, *y = *(struct sm_node *const *)b;
    int order = memcmp(x->name, y->name, SM_MIN(x->name_len, y->name_len));
    return order ? order : (int)x->name_len - (int)y->name_len;
}

/* Puts the children into byte order. */
static int sort_children(struct layout *l, struct sm_node *dir)
{
    size_t n = 0;
    for (struct sm_node *c = dir->children; c; c = c->next)
        n++;
    if (n < 2)
        return 0;
    auto_free struct sm_node **list = reallocarray(NULL, n, sizeof(struct sm_node *));
    if (!list)
        return sm_error_set(l->err, SM_ENOMEM, "out of memory");
    size_t i = 0;
    for (struct sm_node *c = dir->children; c; c = c->next)
        list[i++] = c;
    qsort(list, n, sizeof(struct sm_node *), by_name);
    for (i = 0; i < n; i++) {
        list[i]->prev = i ? list[i - 1] : NULL;
        list[i]->next = i + 1 < n ? list[i + 1] : NULL;
    }
    dir->children = list[0];
    return 0;
}

static int push(struct layout *l, void ***list, size_t *count, size_t *room, void *item)
{
    if (*count == *room) {
        size_t more = *room ? *room * 2 : 256;
        void **grown = reallocarray(*list, more, sizeof(void *));
        if (!grown)
            return sm_error_set(l->err, SM_ENOMEM, "out of memory");
        *list = grown;
        *room = more;
    }
    (*list)[(*count)++] = item;
    return 0;
}

/* Blocks that libext2fs will ask for: extent tree nodes, extended attributes out of the inode. */
static uint32_t spare_for(const struct sm_inode *inode)
{
    uint32_t n = inode->xattrs ? 1 : 0;
    uint64_t extents = 0;
    for (uint32_t i = 0; i < inode->extent_count; i++)
        extents += inode->extents[i].count / MAX_EXTENT + 1;
    return n + (extents > INLINE_EXTENTS ? (uint32_t)(extents / 100 + 2) : 0);
}

/* Numbers all inodes and counts the blocks they need beyond contents. */
static int number_inodes(struct layout *l)
{
    struct sm_node *root = l->rootfs->tree.root;
    int rc = push(l, (void ***)&l->dirs, &l->dir_count, &l->dir_room, root);
    for (size_t i = 0; rc == 0 && i < l->dir_count; i++) {
        struct sm_node *dir = l->dirs[i];
        dir->inode->ino = i == 0 ? EXT2_ROOT_INO : (uint32_t)(EXT2_GOOD_OLD_FIRST_INO + i - 1);
        l->dir_blocks += sm_ext4_dir_blocks(dir);
        l->spare_blocks += spare_for(dir->inode);
        rc = sort_children(l, dir);
        for (struct sm_node *c = dir->children; rc == 0 && c; c = c->next)
            if (S_ISDIR(c->inode->mode))
                rc = push(l, (void ***)&l->dirs, &l->dir_count, &l->dir_room, c);
    }
    l->first_file = (uint32_t)(EXT2_GOOD_OLD_FIRST_INO + l->dir_count - 1);
    for (size_t i = 0; rc == 0 && i < l->dir_count; i++) {
        for (struct sm_node *c = l->dirs[i]->children; rc == 0 && c; c = c->next) {
            if (S_ISDIR(c->inode->mode) || c->inode->ino)
                continue;
            c->inode->ino = l->first_file + (uint32_t)l->file_count;
            if (c->inode->refs > MAX_LINKS)
                return sm_error_set(l->err, SM_ELIMIT,
                    "a file of the image has more than %d hard links", MAX_LINKS);
            if (S_ISLNK(c->inode->mode) && c->inode->size >= 60)
                l->link_blocks++;
            l->spare_blocks += spare_for(c->inode);
            rc = push(l, (void ***)&l->files, &l->file_count, &l->file_room, c->inode);
        }
    }
    return rc;
}

/* Finds the size of the image and the place of the metadata. Both depend on the number of groups,
 * which depends on the size: a few rounds settle it. */
static int place(struct layout *l)
{
    uint64_t inodes = l->first_file + l->file_count;
    uint64_t end = l->rootfs->space.end, total = end;
    uint64_t least_groups = (inodes + MAX_INODES_PER_GROUP - 1) / MAX_INODES_PER_GROUP;
    for (int round = 0; round < 8; round++) {
        uint64_t groups = SM_MAX((total + BLOCKS_PER_GROUP - 1) / BLOCKS_PER_GROUP, least_groups);
        uint64_t table = ((inodes + groups - 1) / groups + INODES_PER_BLOCK - 1) / INODES_PER_BLOCK;
        uint64_t meta = groups * (2 + table) + l->dir_blocks + l->link_blocks + l->spare_blocks;
        uint64_t front = 1 + (groups + DESCS_PER_BLOCK - 1) / DESCS_PER_BLOCK;
        bool fits = front + meta <= SM_HUGE_BLOCKS;
        l->meta = (uint32_t)(fits ? front : end);
        l->meta_end = (uint32_t)(l->meta + meta);
        uint64_t need = fits ? end : sm_align_up(end + meta, SM_HUGE_BLOCKS);
        need = SM_MAX(need, (least_groups - 1) * BLOCKS_PER_GROUP + SM_HUGE_BLOCKS);
        uint64_t last = need % BLOCKS_PER_GROUP;
        if (last && last < 2 + table + LAST_GROUP_SPARE)
            need += sm_align_up(2 + table + LAST_GROUP_SPARE - last, SM_HUGE_BLOCKS);
        if (front > SM_HUGE_BLOCKS || need > UINT32_MAX)
            break;
        if (need == total && groups == (total + BLOCKS_PER_GROUP - 1) / BLOCKS_PER_GROUP) {
            l->total = (uint32_t)total;
            l->groups = (uint32_t)groups;
            return 0;
        }
        total = SM_MAX(total, need);
    }
    return sm_error_set(l->err, SM_ELIMIT, "the image is too large for one file system");
}

/* ---- the empty file system ------------------------------------------------------------------ */

static int64_t newest_time(const struct layout *l)
{
    int64_t t = l->rootfs->tree.root->inode->mtime;
    return SM_MIN(SM_MAX(t, 1), INT32_MAX);
}

static int initialize(struct layout *l, const unsigned char id[32])
{
    struct ext2_super_block param = {0};
    ext2fs_blocks_count_set(&param, l->total);
    param.s_inodes_count = (uint32_t)(l->first_file + l->file_count);
    param.s_log_block_size = 2;
    param.s_log_cluster_size = 2;
    param.s_rev_level = EXT2_DYNAMIC_REV;
    param.s_inode_size = INODE_SIZE;
    param.s_blocks_per_group = BLOCKS_PER_GROUP;
    param.s_feature_compat = EXT2_FEATURE_COMPAT_EXT_ATTR | EXT2_FEATURE_COMPAT_DIR_INDEX |
                             EXT4_FEATURE_COMPAT_SPARSE_SUPER2;
    param.s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
                               EXT4_FEATURE_INCOMPAT_FLEX_BG;
    param.s_feature_ro_compat =
        EXT2_FEATURE_RO_COMPAT_LARGE_FILE | EXT4_FEATURE_RO_COMPAT_HUGE_FILE |
        EXT4_FEATURE_RO_COMPAT_DIR_NLINK | EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE;
    /* The manager of descriptors closes the one that its "name" is; where it fails nobody says
     * whether it did, so that one is lost then. */
    char name[16];
    int fd = fcntl(l->rootfs->space.fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return failed(l, errno, "superblock");
    snprintf(name, sizeof(name), "%d", fd);
    errcode_t code = ext2fs_initialize(name, EXT2_FLAG_64BITS, &param, unixfd_io_manager, &l->fs);
    if (code)
        return failed(l, code, "superblock");
    struct ext2_super_block *sb = l->fs->super;
    if (ext2fs_blocks_count(sb) != l->total || l->fs->group_desc_count != l->groups)
        return sm_error_set(
            l->err, SM_EIO, "the root filesystem's size does not come out as planned");
    l->fs->now = newest_time(l);
    sb->s_mkfs_time = sb->s_wtime = sb->s_lastcheck = (uint32_t)l->fs->now;
    sb->s_checkinterval = 0;
    sb->s_max_mnt_count = -1;
    sb->s_state = EXT2_VALID_FS;
    sb->s_errors = EXT2_ERRORS_RO;
    sb->s_def_hash_version = EXT2_HASH_HALF_MD4;
    sb->s_flags |= EXT2_FLAGS_UNSIGNED_HASH;
    sb->s_flags &= ~(uint32_t)EXT2_FLAGS_SIGNED_HASH;
    sb->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
    sb->s_min_extra_isize = sb->s_want_extra_isize = sizeof(struct ext2_inode_large) - 128;
    memcpy(sb->s_uuid, id, 16);
    sb->s_uuid[6] = (uint8_t)((sb->s_uuid[6] & 0x0f) | 0x40);
    sb->s_uuid[8] = (uint8_t)((sb->s_uuid[8] & 0x3f) | 0x80);
    memcpy(sb->s_hash_seed, id + 16, 16);
    return 0;
}

static void use_blocks(struct layout *l, uint32_t start, uint32_t count)
{
    if (count)
        ext2fs_block_alloc_stats_range(l->fs, start, count, +1);
}

/* Bitmaps and inode tables of all groups, one after the other; what is used by contents; the
 * reserved inodes. */
static int reserve(struct layout *l)
{
    uint32_t at = l->meta, table = l->fs->inode_blocks_per_group;
    for (dgrp_t g = 0; g < l->groups; g++) {
        ext2fs_block_bitmap_loc_set(l->fs, g, at + g);
        ext2fs_inode_bitmap_loc_set(l->fs, g, at + l->groups + g);
        ext2fs_inode_table_loc_set(l->fs, g, at + 2 * l->groups + g * table);
        /* libext2fs has counted each group's tables as in the group; they are counted below. */
        ext2fs_bg_free_blocks_count_set(
            l->fs, g, ext2fs_bg_free_blocks_count(l->fs, g) + 2 + table);
        ext2fs_free_blocks_count_add(l->fs->super, 2 + table);
    }
    uint32_t taken = l->groups * (2 + table);
    use_blocks(l, at, taken);
    l->meta = at + taken;
    if ((uint64_t)l->meta + l->dir_blocks + l->link_blocks > l->meta_end)
        return sm_error_set(l->err, SM_EIO, "the root filesystem's tables do not fit as planned");
    for (size_t i = 0; i < l->file_count; i++)
        for (uint32_t e = 0; e < l->files[i]->extent_count; e++)
            use_blocks(l, l->files[i]->extents[e].phys, l->files[i]->extents[e].count);
    for (ext2_ino_t ino = 1; ino < EXT2_GOOD_OLD_FIRST_INO; ino++)
        ext2fs_inode_alloc_stats2(l->fs, ino, +1, ino == EXT2_ROOT_INO);
    for (size_t i = 1; i < l->dir_count; i++)
        ext2fs_inode_alloc_stats2(l->fs, l->dirs[i]->inode->ino, +1, 1);
    for (size_t i = 0; i < l->file_count; i++)
        ext2fs_inode_alloc_stats2(l->fs, l->files[i]->ino, +1, 0);
    return 0;
}

/* ---- inodes --------------------------------------------------------------------------------- */

static void set_time(uint32_t *low, uint32_t *extra, int64_t seconds, uint32_t nsec)
{
    /* 34 bits of seconds from 1901 on: what is outside is moved to the edge. */
    seconds = SM_MIN(SM_MAX(seconds, INT32_MIN), (3ll << 32) + INT32_MAX);
    *low = (uint32_t)seconds;
    *extra = (uint32_t)(((seconds - (int32_t)seconds) >> 32) & 3) | nsec << 2;
}

static void fill_inode(const struct sm_inode *from, struct ext2_inode_large *to)
{
    *to = (struct ext2_inode_large){
        .i_mode = (uint16_t)from->mode,
        .i_uid = (uint16_t)from->uid,
        .i_gid = (uint16_t)from->gid,
        .i_size = (uint32_t)from->size,
        .i_size_high = (uint32_t)(from->size >> 32),
        .i_links_count = (uint16_t)from->refs,
        .i_extra_isize = sizeof(struct ext2_inode_large) - 128,
    };
    to->osd2.linux2.l_i_uid_high = (uint16_t)(from->uid >> 16);
    to->osd2.linux2.l_i_gid_high = (uint16_t)(from->gid >> 16);
    set_time(&to->i_mtime, &to->i_mtime_extra, from->mtime, from->mtime_nsec);
    to->i_atime = to->i_ctime = to->i_crtime = to->i_mtime;
    to->i_atime_extra = to->i_ctime_extra = to->i_crtime_extra = to->i_mtime_extra;
}

struct run_iter {
    const struct sm_inode *inode;
    uint32_t extent, done;
};

/* The next extent in the pieces that the disk format takes. */
static bool next_run(struct run_iter *it, struct sm_extent *run)
{
    while (it->extent < it->inode->extent_count) {
        const struct sm_extent *e = &it->inode->extents[it->extent];
        if (it->done == e->count) {
            it->extent++;
            it->done = 0;
            continue;
        }
        uint32_t n = SM_MIN(e->count - it->done, (uint32_t)MAX_EXTENT);
        *run = (struct sm_extent){e->logical + it->done, e->phys + it->done, n};
        it->done += n;
        return true;
    }
    return false;
}

/* Puts the first four runs into the inode itself; returns the number of all. */
static uint32_t fill_extents(const struct sm_inode *from, struct ext2_inode_large *to)
{
    struct ext3_extent_header *head = (struct ext3_extent_header *)(void *)to->i_block;
    struct ext3_extent *slot = (struct ext3_extent *)(head + 1);
    struct run_iter it = {.inode = from};
    struct sm_extent run;
    uint64_t blocks = 0;
    uint32_t n = 0;
    for (; next_run(&it, &run); n++) {
        blocks += run.count;
        if (n < INLINE_EXTENTS)
            slot[n] = (struct ext3_extent){
                .ee_block = ext2fs_cpu_to_le32(run.logical),
                .ee_len = ext2fs_cpu_to_le16((uint16_t)run.count),
                .ee_start = ext2fs_cpu_to_le32(run.phys),
            };
    }
    to->i_flags |= EXT4_EXTENTS_FL;
    head->eh_magic = ext2fs_cpu_to_le16(EXT3_EXT_MAGIC);
    head->eh_entries = ext2fs_cpu_to_le16((uint16_t)SM_MIN(n, (uint32_t)INLINE_EXTENTS));
    head->eh_max = ext2fs_cpu_to_le16(INLINE_EXTENTS);
    uint64_t sectors = blocks * (SM_BLOCK_SIZE / 512);
    to->i_blocks = (uint32_t)sectors;
    to->osd2.linux2.l_i_blocks_hi = (uint16_t)(sectors >> 32);
    return n;
}

/* What does not fit into the inode: libext2fs makes the tree. */
static int add_extents(struct layout *l, const struct sm_inode *inode)
{
    ext2_extent_handle_t handle;
    errcode_t code = ext2fs_extent_open(l->fs, inode->ino, &handle);
    if (code)
        return failed(l, code, "extents");
    struct run_iter it = {.inode = inode};
    struct sm_extent run;
    code = ext2fs_extent_goto(handle, 0);
    for (uint32_t n = 0; code == 0 && next_run(&it, &run); n++) {
        struct ext2fs_extent e = {.e_pblk = run.phys, .e_lblk = run.logical, .e_len = run.count};
        if (n == INLINE_EXTENTS)
            code = ext2fs_extent_get(handle, EXT2_EXTENT_LAST_LEAF, &(struct ext2fs_extent){0});
        if (n >= INLINE_EXTENTS && code == 0)
            code = ext2fs_extent_insert(handle, EXT2_EXTENT_INSERT_AFTER, &e);
        if (n >= INLINE_EXTENTS && code == 0)
            code = ext2fs_extent_fix_parents(handle);
    }
    ext2fs_extent_free(handle);
    return code ? failed(l, code, "extents") : 0;
}

static int add_xattrs(struct layout *l, const struct sm_inode *inode)
{
    struct ext2_xattr_handle *handle;
    errcode_t code = ext2fs_xattrs_open(l->fs, inode->ino, &handle);
    if (code)
        return failed(l, code, "extended attributes");
    for (struct sm_xattr *x = inode->xattrs; code == 0 && x; x = x->next)
        code = ext2fs_xattr_set(handle, x->name, x->value, x->size);
    errcode_t closed = ext2fs_xattrs_close(&handle);
    code = code ? code : closed;
    if (code == EXT2_ET_EA_NO_SPACE)
        return sm_error_set(
            l->err, SM_ELIMIT, "a file has more extended attributes than one block holds");
    return code ? failed(l, code, "extended attributes") : 0;
}

static int write_inode(struct layout *l, const struct sm_inode *from,
    struct ext2_inode_large *inode, bool more_extents)
{
    errcode_t code = ext2fs_write_inode_full(
        l->fs, from->ino, (struct ext2_inode *)(void *)inode, sizeof(*inode));
    int rc = code ? failed(l, code, "inodes") : 0;
    if (rc == 0 && more_extents)
        rc = add_extents(l, from);
    if (rc == 0 && from->xattrs)
        rc = add_xattrs(l, from);
    return rc;
}

/* Gives blocks of the metadata's run to an inode. */
static void give_blocks(struct layout *l, struct ext2_inode_large *inode, uint32_t count)
{
    struct sm_extent e = {0, l->meta, count};
    fill_extents(&(struct sm_inode){.extent_count = 1, .extents = &e}, inode);
    use_blocks(l, l->meta, count);
    l->meta += count;
}

static int write_symlink(struct layout *l, const struct sm_inode *from)
{
    struct ext2_inode_large inode;
    fill_inode(from, &inode);
    if (from->size < 60) {
        memcpy(inode.i_block, from->target, from->size);
        return write_inode(l, from, &inode, false);
    }
    char block[SM_BLOCK_SIZE] = "";
    memcpy(block, from->target, from->size);
    errcode_t code = io_channel_write_blk64(l->fs->io, l->meta, 1, block);
    if (code)
        return failed(l, code, "symbolic links");
    give_blocks(l, &inode, 1);
    return write_inode(l, from, &inode, false);
}

static int write_file(struct layout *l, const struct sm_inode *from)
{
    struct ext2_inode_large inode;
    if (S_ISLNK(from->mode))
        return write_symlink(l, from);
    fill_inode(from, &inode);
    uint32_t runs = 0;
    if (S_ISREG(from->mode)) {
        runs = fill_extents(from, &inode);
    } else if (S_ISCHR(from->mode) || S_ISBLK(from->mode)) {
        if (from->major < 256 && from->minor < 256)
            inode.i_block[0] = from->major << 8 | from->minor;
        else
            inode.i_block[1] =
                (from->minor & 0xff) | from->major << 8 | (from->minor & ~0xffu) << 12;
    }
    return write_inode(l, from, &inode, runs > INLINE_EXTENTS);
}

static int write_dir(struct layout *l, const struct sm_node *dir)
{
    struct ext2_inode_large inode;
    fill_inode(dir->inode, &inode);
    uint32_t subdirs = 0;
    for (const struct sm_node *c = dir->children; c; c = c->next)
        subdirs += S_ISDIR(c->inode->mode);
    inode.i_links_count = (uint16_t)(subdirs + 2 < MAX_LINKS ? subdirs + 2 : 1);
    auto_free char *data = NULL;
    uint32_t blocks;
    bool indexed;
    int rc = sm_ext4_dir_make(l->fs->super, dir, &data, &blocks, &indexed, l->err);
    if (rc)
        return rc;
    errcode_t code = io_channel_write_blk64(l->fs->io, l->meta, (int)blocks, data);
    if (code)
        return failed(l, code, "directories");
    inode.i_size = blocks * SM_BLOCK_SIZE;
    if (indexed)
        inode.i_flags |= EXT2_INDEX_FL;
    give_blocks(l, &inode, blocks);
    return write_inode(l, dir->inode, &inode, false);
}

static int write_all(struct layout *l, const unsigned char id[32])
{
    int rc = number_inodes(l);
    if (rc == 0)
        rc = place(l);
    if (rc)
        return rc;
    if (ftruncate(l->rootfs->space.fd, (off_t)l->total * SM_BLOCK_SIZE) != 0)
        return sm_error_errno(l->err, errno, "cannot set the size of the root filesystem");
    rc = initialize(l, id);
    if (rc == 0)
        rc = reserve(l);
    for (size_t i = 0; rc == 0 && i < l->dir_count; i++)
        rc = write_dir(l, l->dirs[i]);
    for (size_t i = 0; rc == 0 && i < l->file_count; i++)
        rc = write_file(l, l->files[i]);
    return rc;
}

int sm_ext4_write(struct sm_rootfs *rootfs, const unsigned char id[32], sm_error *err)
{
    struct layout l = {.rootfs = rootfs, .err = err};
    int rc = write_all(&l, id);
    if (l.fs && rc == 0) {
        errcode_t code = ext2fs_close_free(&l.fs);
        if (code)
            rc = failed(&l, code, "tables");
    } else if (l.fs) {
        ext2fs_free(l.fs);
    }
    free(l.dirs);
    free(l.files);
    return rc;
}
