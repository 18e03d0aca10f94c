/*
 * The changes of a layer are applied to the tree: first all whiteouts, which hide what the layers
 * below brought and nothing of this one, then the entries in the archive's order. Of two entries
 * with one path the later wins. A directory over a directory changes its attributes and keeps what
 * is in it; any other pair of old and new replaces the old whole.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "rootfs/rootfs_internal.h"
#include "util/error.h"

static bool is_dir(const struct sm_node *node)
{
    return S_ISDIR(node->inode->mode);
}

static int apply_whiteout(struct sm_tree *tree, const struct sm_change *c, sm_error *err)
{
    struct sm_node *dir;
    const char *name;
    int rc = sm_tree_parent(tree, c->path, false, &dir, &name, err);
    if (rc || !dir)
        return rc;
    struct sm_node *node = *name ? sm_tree_child(tree, dir, name, strlen(name)) : tree->root;
    if (!node)
        return 0;
    if (!c->opaque)
        sm_tree_remove(tree, node);
    else if (is_dir(node))
        sm_tree_remove_children(tree, node);
    return 0;
}

/* The inode that the entry gives to its path: its own, or, for a hard link, the target's. */
static int find_inode(
    struct sm_tree *tree, const struct sm_change *c, struct sm_inode **inode, sm_error *err)
{
    *inode = c->inode;
    if (c->inode)
        return 0;
    struct sm_node *dir;
    const char *name;
    int rc = sm_tree_parent(tree, c->link_to, false, &dir, &name, err);
    if (rc)
        return rc;
    struct sm_node *node = dir && *name ? sm_tree_child(tree, dir, name, strlen(name)) : NULL;
    if (!node)
        return sm_error_set(
            err, SM_ECORRUPT, "it is a hard link to %.200s, which is not there", c->link_to);
    if (is_dir(node))
        return sm_error_set(
            err, SM_ECORRUPT, "it is a hard link to the directory %.200s", c->link_to);
    *inode = node->inode;
    return 0;
}

static int apply_entry(struct sm_tree *tree, const struct sm_change *c, sm_error *err)
{
    struct sm_inode *inode;
    struct sm_node *dir;
    const char *name;
    int rc = find_inode(tree, c, &inode, err);
    if (rc == 0)
        rc = sm_tree_parent(tree, c->path, true, &dir, &name, err);
    if (rc)
        return rc;
    struct sm_node *old = *name ? sm_tree_child(tree, dir, name, strlen(name)) : tree->root;
    if (old == tree->root && !S_ISDIR(inode->mode))
        return sm_error_set(
            err, SM_ECORRUPT, "it would replace the root directory by something else");
    if (old && old->inode == inode)
        return 0;
    if (old && is_dir(old) == S_ISDIR(inode->mode)) {
        sm_tree_set_inode(tree, old, inode);
        return 0;
    }
    if (old) {
        inode->refs++; /* it may be a hard link to what is removed */
        sm_tree_remove(tree, old);
        rc = sm_tree_add(tree, dir, name, strlen(name), inode, NULL, err);
        sm_inode_put(tree, inode);
        return rc;
    }
    return sm_tree_add(tree, dir, name, strlen(name), inode, NULL, err);
}

int sm_layer_apply(struct sm_tree *tree, struct sm_changes *changes, sm_error *err)
{
    for (struct sm_change *c = changes->first; c; c = c->next) {
        int rc = c->whiteout ? apply_whiteout(tree, c, err) : 0;
        if (rc)
            return sm_error_prefix(err, rc, "the layer's whiteout of %.200s", c->path);
    }
    /* Each entry is freed once applied, so that the list and the tree are not whole at once. */
    while (changes->first) {
        struct sm_change *c = changes->first;
        int rc = c->whiteout ? 0 : apply_entry(tree, c, err);
        if (rc)
            return sm_error_prefix(err, rc, "the layer's entry %.200s", *c->path ? c->path : "/");
        changes->first = c->next;
        sm_inode_put(tree, c->inode);
        free(c);
    }
    return 0;
}

void sm_changes_free(struct sm_tree *tree, struct sm_changes *changes)
{
    while (changes->first) {
        struct sm_change *c = changes->first;
        changes->first = c->next;
        sm_inode_put(tree, c->inode);
        free(c);
    }
}
