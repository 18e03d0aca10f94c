/*
 * Directory blocks, and the hash index (htree) of larger ones: block 0 holds "." and ".." and
 * behind them the index, one entry a leaf: the lowest hash of its names and its block. Leaves hold
 * the names in the order of their hashes. One level of index leads to some 70 000 names; what is
 * larger than that stays without an index, which is slow and right.
 */
#include "rootfs/ext4_dir.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "rootfs/space.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

enum {
    DOTS = 24, /* bytes of "." and ".." */
    INDEX_AT = DOTS + 8,
    INDEX_LIMIT = (SM_BLOCK_SIZE - INDEX_AT) / 8,
    LEAST_FILL = SM_BLOCK_SIZE - 264, /* an entry of the longest name always fits otherwise */
};

struct hashed {
    uint32_t hash, minor;
    const struct sm_node *node;
};

static uint32_t entry_size(size_t name_len)
{
    return (uint32_t)sm_align_up(8 + name_len, 4);
}

static uint64_t entries_size(const struct sm_node *dir, size_t *count)
{
    uint64_t size = 0;
    *count = 0;
    for (const struct sm_node *c = dir->children; c; c = c->next) {
        size += entry_size(c->name_len);
        ++*count;
    }
    return size;
}

uint32_t sm_ext4_dir_blocks(const struct sm_node *dir)
{
    size_t count;
    uint64_t size = entries_size(dir, &count);
    return size <= SM_BLOCK_SIZE - DOTS ? 1 : (uint32_t)(size / LEAST_FILL + 2);
}

static uint8_t type_of(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return EXT2_FT_REG_FILE;
    case S_IFDIR:
        return EXT2_FT_DIR;
    case S_IFCHR:
        return EXT2_FT_CHRDEV;
    case S_IFBLK:
        return EXT2_FT_BLKDEV;
    case S_IFIFO:
        return EXT2_FT_FIFO;
    case S_IFLNK:
        return EXT2_FT_SYMLINK;
    default:
        return EXT2_FT_UNKNOWN;
    }
}

static void put_entry(
    char *at, uint32_t ino, const char *name, size_t len, uint8_t type, uint32_t size)
{
    sm_store_le32(at, ino);
    sm_store_le16(at + 4, (uint16_t)size);
    at[6] = (char)len;
    at[7] = (char)type;
    memcpy(at + 8, name, len);
}

/* Fills blocks with entries; the last of a block takes what is left of it. */
struct packer {
    char *block; /* the current one */
    uint32_t used;
    char *last;
};

static void pack_end(struct packer *p)
{
    if (p->last) {
        uint32_t rest = SM_BLOCK_SIZE - (uint32_t)(p->last - p->block);
        sm_store_le16(p->last + 4, (uint16_t)rest);
    }
}

/* Returns whether a new block was begun for it. */
static bool pack(struct packer *p, uint32_t ino, const char *name, size_t len, uint8_t type)
{
    uint32_t size = entry_size(len);
    bool begun = p->used + size > SM_BLOCK_SIZE;
    if (begun) {
        pack_end(p);
        p->block += SM_BLOCK_SIZE;
        p->used = 0;
    }
    p->last = p->block + p->used;
    put_entry(p->last, ino, name, len, type, size);
    p->used += size;
    return begun;
}

static void pack_node(struct packer *p, const struct sm_node *c)
{
    pack(p, c->inode->ino, c->name, c->name_len, type_of(c->inode->mode));
}

static uint32_t make_linear(const struct sm_node *dir, char *data)
{
    struct packer p = {.block = data};
    pack(&p, dir->inode->ino, ".", 1, EXT2_FT_DIR);
    pack(&p, dir->parent->inode->ino, "..", 2, EXT2_FT_DIR);
    for (const struct sm_node *c = dir->children; c; c = c->next)
        pack_node(&p, c);
    pack_end(&p);
    return (uint32_t)((p.block - data) / SM_BLOCK_SIZE) + 1;
}

static int by_hash(const void *a, const void *b)
{
    const struct hashed *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    if (x->minor != y->minor)
        return x->minor < y->minor ? -1 : 1;
    int order = memcmp(x->node->name, y->node->name, SM_MIN(x->node->name_len, y->node->name_len));
    return order ? order : (int)x->node->name_len - (int)y->node->name_len;
}

/* The leaves, and the index in front. False where the index has not room enough. */
static bool make_indexed(const struct sm_node *dir, const struct hashed *list, size_t count,
    char *data, uint32_t *blocks)
{
    put_entry(data, dir->inode->ino, ".", 1, EXT2_FT_DIR, 12);
    put_entry(data + 12, dir->parent->inode->ino, "..", 2, EXT2_FT_DIR, SM_BLOCK_SIZE - 12);
    struct ext2_dx_root_info info = {.hash_version = EXT2_HASH_HALF_MD4, .info_length = 8};
    memcpy(data + DOTS, &info, sizeof(info));
    struct packer p = {.block = data + SM_BLOCK_SIZE};
    uint32_t leaves = 1;
    sm_store_le32(data + INDEX_AT + 4, 1);
    for (size_t i = 0; i < count; i++) {
        const struct sm_node *c = list[i].node;
        if (!pack(&p, c->inode->ino, c->name, c->name_len, type_of(c->inode->mode)))
            continue;
        if (leaves == INDEX_LIMIT)
            return false;
        /* Names of one hash that go on in the next leaf are marked by the lowest bit. */
        uint32_t hash = list[i].hash | (list[i].hash == list[i - 1].hash);
        sm_store_le32(data + INDEX_AT + 8 * leaves, hash);
        sm_store_le32(data + INDEX_AT + 8 * leaves + 4, leaves + 1);
        leaves++;
    }
    pack_end(&p);
    sm_store_le16(data + INDEX_AT, INDEX_LIMIT);
    sm_store_le16(data + INDEX_AT + 2, (uint16_t)leaves);
    *blocks = leaves + 1;
    return true;
}

int sm_ext4_dir_make(const struct ext2_super_block *sb, const struct sm_node *dir, char **out,
    uint32_t *blocks, bool *indexed, sm_error *err)
{
    size_t count;
    uint32_t most = sm_ext4_dir_blocks(dir);
    entries_size(dir, &count);
    auto_free char *data = calloc(most, SM_BLOCK_SIZE);
    auto_free struct hashed *list = most > 1 ? reallocarray(NULL, count, sizeof(*list)) : NULL;
    if (!data || (most > 1 && !list))
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    *indexed = false;
    if (list) {
        size_t i = 0;
        for (const struct sm_node *c = dir->children; c; c = c->next, i++) {
            list[i].node = c;
            if (ext2fs_dirhash(EXT2_HASH_HALF_MD4_UNSIGNED, c->name, c->name_len, sb->s_hash_seed,
                    &list[i].hash, &list[i].minor) != 0)
                return sm_error_set(err, SM_EIO, "cannot hash a file name");
        }
        qsort(list, count, sizeof(*list), by_hash);
        *indexed = make_indexed(dir, list, count, data, blocks);
        if (!*indexed)
            memset(data, 0, (size_t)most * SM_BLOCK_SIZE);
    }
    if (!*indexed)
        *blocks = make_linear(dir, data);
    *out = sm_steal_ptr(&data);
    return 0;
}
