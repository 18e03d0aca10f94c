/* Lists what an ext4 image holds, read back with libext2fs: one line a file, sorted by path:
 * PATH TYPE MODE UID GID SIZE MTIME WHAT [xattr:NAME=HEX...], where WHAT is the SHA-256 of the
 * contents, the target of a link or the number of a device; a further name of an inode that was
 * listed already is "PATH hardlink FIRST-PATH". */
#ifndef SM_TESTS_EXT4_DUMP_H
#define SM_TESTS_EXT4_DUMP_H

#include <stdio.h>

/* Returns 0, or -1 with a message on stderr. */
int ext4_dump(const char *image, FILE *out);

#endif
