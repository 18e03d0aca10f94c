/* What all writers share: system calls, threads, the .partial file. See io.h. */
#include "snapshot/io.h"

#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/signals.h"

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

static int real_thread(pthread_t *thread, void *(*fn)(void *), void *arg)
{
    return pthread_create(thread, NULL, fn, arg);
}

const struct sm_snapshot_io sm_snapshot_io_real = {
    .pwrite = pwrite,
    .truncate = ftruncate,
    .punch = real_punch,
    .clone = real_clone,
    .copy = real_copy,
    .sync = fdatasync,
    .rename = rename,
    .thread = real_thread,
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

static void *work(void *arg)
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
    return NULL;
}

int sm_snapshot_parallel(const struct sm_snapshot_io *io, unsigned threads, size_t n,
    sm_snapshot_task *task, void *arg, sm_error *err)
{
    struct pool pool = {.task = task, .arg = arg, .n = n};
    pthread_t others[MAX_THREADS];
    unsigned started = 0;
    sigset_t all, before;

    /* The caller's signal handlers stay on the caller's threads. */
    sm_signals_fill(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    while (started + 1 < threads && started + 1 < n && started < MAX_THREADS &&
           io->thread(&others[started], work, &pool) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    work(&pool);
    for (unsigned i = 0; i < started; i++)
        pthread_join(others[i], NULL);
    int rc = atomic_load(&pool.rc);
    if (rc && err)
        *err = pool.err;
    return rc;
}

/* ---- PATH.partial -------------------------------------------------------------------------- */

int sm_partial_open(
    struct sm_partial *p, const char *path, const struct sm_snapshot_io *io, sm_error *err)
{
    auto_free char *name = strdup(path), *partial = NULL;
    if (!name || asprintf(&partial, "%s.partial", path) < 0)
        return sm_error_set(err, SM_ENOMEM, "no memory for a path");
    /* Not O_TRUNC: it may be another's who is at work. The lock tells, and dies with its owner. */
    auto_fd fd = open(partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0)
        return sm_error_errno(err, errno, "cannot make %s", partial);
    struct stat opened, there;
    if (flock(fd, LOCK_EX | LOCK_NB) || fstat(fd, &opened) || stat(partial, &there) ||
        opened.st_ino != there.st_ino)
        return sm_error_set(err, SM_EBUSY, "%s is being written by somebody else", path);
    if (!S_ISREG(opened.st_mode))
        return sm_error_set(err, SM_EINVAL, "%s is in the way: remove it", partial);
    if (io->truncate(fd, 0)) {
        int saved = errno;
        unlink(partial);
        return sm_error_errno(err, saved, "cannot empty %s", partial);
    }
    *p = (struct sm_partial){.io = io,
        .path = sm_steal_ptr(&name),
        .partial = sm_steal_ptr(&partial),
        .fd = sm_steal_fd(&fd)};
    return 0;
}

static int sync_directory_of(const char *path)
{
    auto_free char *copy = strdup(path);
    if (!copy)
        return -1;
    auto_fd fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -1 : fsync(fd);
}

int sm_partial_commit(struct sm_partial *p, bool sync, sm_error *err)
{
    if (sync && p->io->sync(p->fd))
        return sm_error_errno(err, errno, "cannot bring %s to disk", p->partial);
    if (p->io->rename(p->partial, p->path))
        return sm_error_errno(err, errno, "cannot rename %s to %s", p->partial, p->path);
    /* From here on the file is there; a directory that cannot be flushed only delays durability. */
    free(p->partial);
    p->partial = NULL;
    if (sync)
        (void)sync_directory_of(p->path);
    return 0;
}

void sm_partial_close(struct sm_partial *p)
{
    if (p->partial)
        unlink(p->partial);
    sm_close(p->fd);
    free(p->partial);
    free(p->path);
    *p = (struct sm_partial){.fd = -1};
}
