/*
 * The blocks of the image file that is being made: where file contents go, and their writing.
 *
 * Contents are written as they stream by, before the file system around them exists. The first
 * 2 MiB are left for its metadata. Files of 2 MiB and more start at 2 MiB boundaries, so that a
 * guest can map them by large pages; smaller ones are packed one after the other into what lies
 * between. What a later layer replaces is punched out and used again. Blocks that would be all
 * zero are not written: the file is sparse.
 */
#ifndef SM_ROOTFS_SPACE_H
#define SM_ROOTFS_SPACE_H

#include <supermachine.h>

#include "rootfs/tree.h"

#define SM_BLOCK_SIZE   4096u
#define SM_HUGE_BLOCKS  512u /* 2 MiB */
#define SM_WRITE_BUFFER (512u << 10)

struct sm_gap {
    uint32_t start, count;
};

struct sm_space {
    int fd;
    uint32_t end;        /* nothing at or behind it is in use; a multiple of SM_HUGE_BLOCKS */
    uint32_t max;        /* bound of end */
    struct sm_gap *gaps; /* free runs below end */
    size_t gap_count, gap_room;
    char *buf; /* contents on their way: buf_len bytes for buf_pos */
    uint64_t buf_pos;
    size_t buf_len;
    uint64_t unsynced; /* bytes given to the kernel since it was last told to write */
};

int sm_space_init(struct sm_space *space, int fd, uint64_t max_bytes, sm_error *err);
void sm_space_clear(struct sm_space *space);

/* A run of `count` blocks. */
int sm_space_alloc(struct sm_space *space, uint32_t count, uint32_t *start, sm_error *err);
/* Gives a run back; its contents are gone. */
void sm_space_free(struct sm_space *space, uint32_t start, uint32_t count);

/* Writes at a byte position of the image. */
int sm_space_write(
    struct sm_space *space, uint64_t pos, const void *data, size_t size, sm_error *err);
int sm_space_flush(struct sm_space *space, sm_error *err);

#endif
