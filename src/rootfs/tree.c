/* The file tree in memory. See tree.h. */
#include "rootfs/tree.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

enum { FIRST_TABLE = 1024 };

static uint32_t hash_of(const struct sm_node *dir, const char *name, size_t len)
{
    uint64_t h = 0xcbf29ce484222325ull ^ ((uintptr_t)dir >> 4);
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)name[i]) * 0x100000001b3ull;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9ull;
    return (uint32_t)(h >> 32);
}

/* ---- inodes -------------------------------------------------------------------------------- */

struct sm_inode *sm_inode_new(uint32_t mode)
{
    struct sm_inode *inode = calloc(1, sizeof(*inode));
    if (inode) {
        inode->mode = mode;
        inode->refs = 1;
    }
    return inode;
}

void sm_inode_put(struct sm_tree *tree, struct sm_inode *inode)
{
    if (!inode || --inode->refs > 0)
        return;
    if (tree->gone)
        tree->gone(tree->gone_arg, inode);
    while (inode->xattrs) {
        struct sm_xattr *next = inode->xattrs->next;
        free(inode->xattrs);
        inode->xattrs = next;
    }
    free(inode->extents);
    free(inode->target);
    free(inode);
}

/* ---- names --------------------------------------------------------------------------------- */

int sm_tree_init(
    struct sm_tree *tree, size_t max_count, sm_inode_gone_fn *gone, void *arg, sm_error *err)
{
    *tree = (struct sm_tree){.table_size = FIRST_TABLE,
        .max_count = max_count,
        .steps_left = SM_TREE_MAX_STEPS,
        .gone = gone,
        .gone_arg = arg};
    tree->table = calloc(FIRST_TABLE, sizeof(struct sm_node *));
    tree->root = calloc(1, sizeof(*tree->root));
    struct sm_inode *inode = sm_inode_new(S_IFDIR | 0755);
    if (!tree->table || !tree->root || !inode) {
        free(inode);
        sm_tree_clear(tree);
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    tree->root->inode = inode;
    tree->root->parent = tree->root;
    tree->count = 1;
    return 0;
}

void sm_tree_clear(struct sm_tree *tree)
{
    if (tree->root) {
        if (tree->root->inode) {
            sm_tree_remove_children(tree, tree->root);
            sm_inode_put(tree, tree->root->inode);
        }
        free(tree->root);
    }
    free(tree->table);
    *tree = (struct sm_tree){0};
}

struct sm_node *sm_tree_child(
    const struct sm_tree *tree, const struct sm_node *dir, const char *name, size_t len)
{
    uint32_t hash = hash_of(dir, name, len);
    struct sm_node *n = tree->table[hash & (tree->table_size - 1)];
    while (n && (n->hash != hash || n->parent != dir || n->name_len != len ||
                    memcmp(n->name, name, len) != 0))
        n = n->hash_next;
    return n;
}

/* Doubles the table; when there is no memory for it the chains just grow. */
static void grow_table(struct sm_tree *tree)
{
    size_t size = tree->table_size * 2;
    struct sm_node **table = calloc(size, sizeof(struct sm_node *));
    if (!table)
        return;
    for (size_t i = 0; i < tree->table_size; i++) {
        struct sm_node *n = tree->table[i];
        while (n) {
            struct sm_node *next = n->hash_next;
            n->hash_next = table[n->hash & (size - 1)];
            table[n->hash & (size - 1)] = n;
            n = next;
        }
    }
    free(tree->table);
    tree->table = table;
    tree->table_size = size;
}

int sm_tree_add(struct sm_tree *tree, struct sm_node *dir, const char *name, size_t len,
    struct sm_inode *inode, struct sm_node **out, sm_error *err)
{
    if (len == 0 || len > SM_TREE_MAX_NAME)
        return sm_error_set(err, SM_ELIMIT, "the file name %.60s... is longer than %d bytes", name,
            SM_TREE_MAX_NAME);
    if (dir->depth >= SM_TREE_MAX_DEPTH)
        return sm_error_set(
            err, SM_ELIMIT, "directories are nested deeper than %d levels", SM_TREE_MAX_DEPTH);
    if (tree->count >= tree->max_count)
        return sm_error_set(err, SM_ELIMIT, "the image has more than %zu files", tree->max_count);
    struct sm_node *node = malloc(sizeof(*node) + len);
    if (!node)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    if (tree->count >= tree->table_size)
        grow_table(tree);
    *node = (struct sm_node){
        .parent = dir,
        .next = dir->children,
        .inode = inode,
        .hash = hash_of(dir, name, len),
        .depth = (uint16_t)(dir->depth + 1),
        .name_len = (uint8_t)len,
    };
    memcpy(node->name, name, len);
    inode->refs++;
    if (dir->children)
        dir->children->prev = node;
    dir->children = node;
    struct sm_node **slot = &tree->table[node->hash & (tree->table_size - 1)];
    node->hash_next = *slot;
    *slot = node;
    tree->count++;
    if (out)
        *out = node;
    return 0;
}

void sm_tree_remove(struct sm_tree *tree, struct sm_node *node)
{
    sm_tree_remove_children(tree, node);
    struct sm_node **slot = &tree->table[node->hash & (tree->table_size - 1)];
    while (*slot != node)
        slot = &(*slot)->hash_next;
    *slot = node->hash_next;
    if (node->prev)
        node->prev->next = node->next;
    else
        node->parent->children = node->next;
    if (node->next)
        node->next->prev = node->prev;
    sm_inode_put(tree, node->inode);
    free(node);
    tree->count--;
}

void sm_tree_remove_children(struct sm_tree *tree, struct sm_node *dir)
{
    while (dir->children)
        sm_tree_remove(tree, dir->children);
}

void sm_tree_set_inode(struct sm_tree *tree, struct sm_node *node, struct sm_inode *inode)
{
    inode->refs++;
    sm_inode_put(tree, node->inode);
    node->inode = inode;
}

/* ---- paths --------------------------------------------------------------------------------- */

/* What is still to be walked: the rest of the path, with the targets of links put in front. */
struct walk {
    struct sm_tree *tree;
    struct sm_node *at;
    unsigned links;
    bool make;
    sm_error *err;
};

static int walk_path(struct walk *w, const char *path, size_t len);

static int follow_link(struct walk *w, const char *target)
{
    if (++w->links > SM_TREE_MAX_SYMLINKS)
        return sm_error_set(
            w->err, SM_ECORRUPT, "too many symbolic links on the way, last: %.100s", target);
    if (*target == '/')
        w->at = w->tree->root;
    return walk_path(w, target, strlen(target));
}

static int make_dir(struct walk *w, const char *name, size_t len)
{
    struct sm_inode *inode = sm_inode_new(S_IFDIR | 0755);
    if (!inode)
        return sm_error_set(w->err, SM_ENOMEM, "out of memory");
    struct sm_node *node = NULL;
    int rc = sm_tree_add(w->tree, w->at, name, len, inode, &node, w->err);
    sm_inode_put(w->tree, inode);
    if (rc == 0)
        w->at = node;
    return rc;
}

/* Walks the components from w->at; recursion is one level a link, of which there are few. w->at is
 * NULL afterwards where something is missing and may not be made. */
static int walk_path(struct walk *w, const char *path, size_t len)
{
    const char *end = path + len;
    while (path < end) {
        const char *slash = memchr(path, '/', (size_t)(end - path));
        size_t n = (size_t)((slash ? slash : end) - path);
        int rc = 0;
        if (w->links && !w->tree->steps_left--) {
            w->tree->steps_left = 0;
            return sm_error_set(w->err, SM_ELIMIT,
                "the layers' paths lead through too many symbolic links, last: %.*s", (int)n, path);
        }
        if (n == 2 && memcmp(path, "..", 2) == 0) {
            w->at = w->at->parent;
        } else if (n > 0 && !(n == 1 && *path == '.')) {
            struct sm_node *child = sm_tree_child(w->tree, w->at, path, n);
            if (!child && w->make)
                rc = make_dir(w, path, n);
            else if (!child)
                w->at = NULL;
            else if (S_ISLNK(child->inode->mode))
                rc = follow_link(w, child->inode->target);
            else if (S_ISDIR(child->inode->mode))
                w->at = child;
            else if (w->make)
                rc = sm_error_set(
                    w->err, SM_ECORRUPT, "%.*s is used as a directory, but is none", (int)n, path);
            else
                w->at = NULL;
        }
        if (rc || !w->at)
            return rc;
        path += n + 1;
    }
    return 0;
}

int sm_tree_parent(struct sm_tree *tree, const char *path, bool make, struct sm_node **dir,
    const char **name, sm_error *err)
{
    if (strlen(path) > SM_TREE_MAX_PATH)
        return sm_error_set(
            err, SM_ELIMIT, "the path %.60s... is longer than %d bytes", path, SM_TREE_MAX_PATH);
    const char *slash = strrchr(path, '/');
    struct walk w = {.tree = tree, .at = tree->root, .make = make, .err = err};
    int rc = slash ? walk_path(&w, path, (size_t)(slash - path)) : 0;
    *dir = w.at;
    *name = slash ? slash + 1 : path;
    return rc;
}
