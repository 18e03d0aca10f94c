/* Directories as ext4 stores them. */
#ifndef SM_ROOTFS_EXT4_DIR_H
#define SM_ROOTFS_EXT4_DIR_H

#include <ext2fs/ext2fs.h>

#include "rootfs/tree.h"

/* How many blocks sm_ext4_dir_make will take at most. */
uint32_t sm_ext4_dir_blocks(const struct sm_node *dir);

/* The directory's blocks (malloc'ed): one block of entries in the children's order, or, where they
 * do not fit into one, an index of hashes in front of leaves (`indexed`), so that a look-up reads
 * two or three blocks of it and not all. */
int sm_ext4_dir_make(const struct ext2_super_block *sb, const struct sm_node *dir, char **data,
    uint32_t *blocks, bool *indexed, sm_error *err);

#endif
