/*
 * The system calls that writers make, as a table: tests put failures in (disk full, no reflink, no
 * hole punching, threads refused) where a real machine would need a broken disk. NULL stands for
 * the real ones.
 */
#ifndef SM_SNAPSHOT_IO_H
#define SM_SNAPSHOT_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <supermachine.h>

#include "util/file.h"
#include "util/thread.h"

struct sm_snapshot_io {
    ssize_t (*pwrite)(int fd, const void *buf, size_t len, off_t at);
    int (*truncate)(int fd, off_t bytes);
    int (*punch)(int fd, off_t at, off_t len); /* fallocate PUNCH_HOLE | KEEP_SIZE */
    int (*clone)(int to, int from);            /* FICLONE */
    ssize_t (*copy)(int from, off_t *from_at, int to, off_t *to_at, size_t len);
    int (*sync)(int fd);
    int (*rename)(int from_dir, const char *from, int to_dir, const char *to);
    int (*thread)(struct sm_thread *thread, const char *name, sm_thread_fn *fn, void *arg,
        size_t stack, sm_error *err); /* sm_thread_start */
};

extern const struct sm_snapshot_io sm_snapshot_io_real;

/* pwrite all of it, or a sentence. */
int sm_snapshot_write_at(const struct sm_snapshot_io *io, int fd, const void *buf, size_t len,
    uint64_t at, sm_error *err);

/* Runs task(arg, i) for i in 0..n-1 on up to `threads` threads, the calling one among them. When
 * the system refuses threads, fewer do the same work. The first failure stops the rest and is
 * returned. */
typedef int sm_snapshot_task(void *arg, size_t i, sm_error *err);
int sm_snapshot_parallel(const struct sm_snapshot_io *io, unsigned threads, size_t n,
    sm_snapshot_task *task, void *arg, sm_error *err);

/* sm_partial_open with these calls; nobody is waited for. */
int sm_snapshot_partial_open(
    struct sm_partial *p, const char *path, const struct sm_snapshot_io *io, sm_error *err);

#endif
