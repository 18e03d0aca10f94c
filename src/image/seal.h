/*
 * The seal of a root filesystem: its length, its time and a CRC32C of each 2 MiB, kept in seals/
 * under the name that the file has in rootfs/, without its suffix.
 *
 * The file is written once and then only read, by guests that believe every byte of it. What has
 * changed since shows in one of three ways, by what it costs to look:
 * - its length, its modification time and its first block (the superblock) are compared at every
 *   look-up. Whoever writes into it or cuts it short changes one of them;
 * - all of it is compared when the time is another one, when an image is made ready or verified,
 *   and before a bake: as long as reading what the file holds on disk takes (holes are not read);
 * - a file that has no seal counts as damaged.
 * What is damaged is made anew by the next builder, from the image's layers. CRC32C finds damage,
 * not attackers: the store is its owner's, and who may write the file may write its seal; so a
 * restore needs no crypto library.
 */
#ifndef SM_IMAGE_SEAL_H
#define SM_IMAGE_SEAL_H

#include "image/store.h"

enum sm_seal_depth {
    SM_SEAL_GLANCE, /* all of it only if its time is not that of the seal */
    SM_SEAL_WHOLE,
};

/* Seals the finished file; `rootfs` is its name in the store. */
int sm_seal_make(struct sm_imgstore *store, const char *rootfs, int fd, sm_error *err);

/* SM_ECORRUPT: it is not as it was sealed, or has no seal; other errors say nothing about it. A
 * file that is found whole gets the time of its seal. */
int sm_seal_check(
    struct sm_imgstore *store, const char *rootfs, int fd, enum sm_seal_depth depth, sm_error *err);

/* Takes the seal away, so that nobody uses the file any more. */
void sm_seal_break(struct sm_imgstore *store, const char *rootfs);

#endif
