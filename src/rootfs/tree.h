/*
 * The file tree of an image in memory: names and inodes, without file contents (those are in blocks
 * of the image file already, see space.h).
 *
 * Names are looked up through one hash table over (parent, name). Paths are resolved inside of the
 * tree alone: ".." stops at the root, symbolic links are followed only for the parents of what is
 * named, and absolute targets start at the tree's root. Depth is bounded, so recursion is.
 */
#ifndef SM_ROOTFS_TREE_H
#define SM_ROOTFS_TREE_H

#include <supermachine.h>

enum {
    SM_TREE_MAX_DEPTH = 255,
    SM_TREE_MAX_PATH = 4096,
    SM_TREE_MAX_NAME = 255,
    SM_TREE_MAX_SYMLINKS = 40,
};

/* Components of link targets that an image may have walked in all, over all its layers: a second of
 * work. A path may lead through 40 links of 2000 components, so a layer of some kilobytes could ask
 * for hours. */
#define SM_TREE_MAX_STEPS (128ull << 20)

/* Blocks of 4 KiB: file blocks logical.. are the image's phys... */
struct sm_extent {
    uint32_t logical, phys, count;
};

struct sm_xattr {
    struct sm_xattr *next; /* sorted by name */
    uint32_t size;
    char *name; /* both behind this structure */
    unsigned char *value;
};

struct sm_inode {
    uint32_t refs; /* names that lead to it, and whoever holds it */
    uint32_t ino;  /* number in the image, while that is written */
    uint32_t mode; /* type and permissions */
    uint32_t uid, gid;
    uint32_t mtime_nsec;
    int64_t mtime;
    uint64_t size;
    uint32_t major, minor;
    uint32_t extent_count;
    struct sm_extent *extents;
    char *target; /* symbolic link */
    struct sm_xattr *xattrs;
};

struct sm_node {
    struct sm_node *parent;
    struct sm_node *prev, *next; /* siblings, in no order */
    struct sm_node *children;
    struct sm_node *hash_next;
    struct sm_inode *inode;
    uint32_t hash;
    uint16_t depth;
    uint8_t name_len;
    char name[]; /* not terminated */
};

/* Told of an inode that nothing leads to any more, before it is freed. */
typedef void sm_inode_gone_fn(void *arg, const struct sm_inode *inode);

struct sm_tree {
    struct sm_node *root;
    struct sm_node **table;
    size_t table_size, count, max_count;
    uint64_t steps_left; /* of SM_TREE_MAX_STEPS */
    sm_inode_gone_fn *gone;
    void *gone_arg;
};

/* max_count bounds the number of names. */
int sm_tree_init(
    struct sm_tree *tree, size_t max_count, sm_inode_gone_fn *gone, void *arg, sm_error *err);
void sm_tree_clear(struct sm_tree *tree);

struct sm_inode *sm_inode_new(uint32_t mode);
void sm_inode_put(struct sm_tree *tree, struct sm_inode *inode);

struct sm_node *sm_tree_child(
    const struct sm_tree *tree, const struct sm_node *dir, const char *name, size_t len);

/* The directory that holds the last component of a clean path, symbolic links on the way followed;
 * *name is that component ("" for the root itself). What is missing is made (mode 0755, root's)
 * when `make`, else *dir is NULL. */
int sm_tree_parent(struct sm_tree *tree, const char *path, bool make, struct sm_node **dir,
    const char **name, sm_error *err);

/* Adds a name for the inode (takes a reference of its own). The name is not there yet. */
int sm_tree_add(struct sm_tree *tree, struct sm_node *dir, const char *name, size_t len,
    struct sm_inode *inode, struct sm_node **node, sm_error *err);

/* Removes the name and all below it. The root cannot be removed. */
void sm_tree_remove(struct sm_tree *tree, struct sm_node *node);
void sm_tree_remove_children(struct sm_tree *tree, struct sm_node *dir);

/* Gives the node another inode (takes a reference of its own). */
void sm_tree_set_inode(struct sm_tree *tree, struct sm_node *node, struct sm_inode *inode);

#endif
