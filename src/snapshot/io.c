/*
 * What all writers share: system calls, threads, the .partial file. See io.h.
 *
 * System calls at a capture: fallocate, ioctl(FICLONE), copy_file_range, ftruncate, pwrite64,
 * fsync.
 */
#include "snapshot/io.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>

#include "util/error.h"

#define MAX_THREADS 64

static int real_punch(int fd, off_t at, off_t len)
{
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, len);
}

static int real_clone(int to, int from)
{
    return ioctl(to, FICLONE, from);
}

static ssize_t real_copy(int from, off_t *from_at, int to, off_t *to_at, size_t len)
{
    return copy_file_range(from, from_at, to, to_at, len, 0);
}

const struct sm_snapshot_io sm_snapshot_io_real = {
    .pwrite = pwrite,
    .truncate = ftruncate,
    .punch = real_punch,
    .clone = real_clone,
    .copy = real_copy,
    .sync = fdatasync,
    .rename = renameat,
    .thread = sm_thread_start,
};

int sm_snapshot_write_at(const struct sm_snapshot_io *io, int fd, const void *buf, size_t len,
    uint64_t at, sm_error *err)
{
    const uint8_t *p = buf;
    while (len) {
        ssize_t n = io->pwrite(fd, p, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return sm_error_errno(
                err, n < 0 ? errno : EIO, "cannot write %zu bytes at %" PRIu64, len, at);
        p += n;
        at += (size_t)n;
        len -= (size_t)n;
    }
    return 0;
}

/* ---- threads ------------------------------------------------------------------------------- */

struct pool {
    sm_snapshot_task *task;
    void *arg;
    size_t n;
    atomic_size_t next;
    atomic_int rc; /* of the first failure */
    sm_error err;  /* its; read after all have been joined */
};

static void work(void *arg)
{
    struct pool *pool = arg;
    size_t i;
    while (!atomic_load(&pool->rc) && (i = atomic_fetch_add(&pool->next, 1)) < pool->n) {
        sm_error err = {0};
        int rc = pool->task(pool->arg, i, &err);
        int none = 0;
        if (rc && atomic_compare_exchange_strong(&pool->rc, &none, rc))
            pool->err = err;
    }
}

int sm_snapshot_parallel(const struct sm_snapshot_io *io, unsigned threads, size_t n,
    sm_snapshot_task *task, void *arg, sm_error *err)
{
    struct pool pool = {.task = task, .arg = arg, .n = n};
    struct sm_thread others[MAX_THREADS];
    unsigned started = 0;
    while (started + 1 < threads && started + 1 < n && started < MAX_THREADS &&
           io->thread(&others[started], "writer", work, &pool, 0, NULL) == 0)
        started++;
    work(&pool);
    for (unsigned i = 0; i < started; i++)
        sm_thread_join(&others[i]);
    int rc = atomic_load(&pool.rc);
    if (rc && err)
        *err = pool.err;
    return rc;
}

int sm_snapshot_partial_open(
    struct sm_partial *p, const char *path, const struct sm_snapshot_io *io, sm_error *err)
{
    return sm_partial_open(p, AT_FDCWD, path,
        &(struct sm_partial_options){.calls = {.sync = io->sync, .rename = io->rename}}, err);
}
