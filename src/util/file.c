/*
 * Files that appear whole, and places for them. See file.h.
 *
 * System calls: read, write, pread64, pwrite64.
 * System calls elsewhere: openat, open, fstat, newfstatat, unlinkat, fsync, mkdirat.
 */
#include "util/file.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util/error.h"
#include "util/lock.h"

#define POLL_MS 5
#define AGAIN   1 /* it went or changed while it was looked at */

/* Whether the name leads to this file. */
static bool leads_to(int dir, const char *name, const struct stat *file)
{
    struct stat there;
    return fstatat(dir, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_ino == file->st_ino &&
           there.st_dev == file->st_dev;
}

static int in_the_way(const struct sm_partial *p, sm_error *err)
{
    return sm_error_set(err, SM_EEXIST,
        "%s is in the way, and is no file that this user has left there: remove it", p->partial);
}

/* What is only looked at and locked need not be writable: its writer may have made it read-only
 * already. */
static int open_found(const struct sm_partial *p, bool resume)
{
    int how = resume ? O_RDWR : O_RDONLY;
    return openat(p->dir, p->partial, how | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* Whether the failure to open it says that it is a link, a directory, a socket, or closed to us. */
static bool is_foreign(int errnum)
{
    return errnum == ELOOP || errnum == EISDIR || errnum == ENXIO || errnum == EACCES;
}

/* One attempt to have the locked file. */
static int try_open(struct sm_partial *p, bool resume, sm_error *err)
{
    auto_fd fd = openat(p->dir, p->partial, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool found = fd < 0 && errno == EEXIST;
    if (found) {
        fd = open_found(p, resume);
        if (fd < 0 && errno == ENOENT)
            return AGAIN;
        if (fd < 0 && is_foreign(errno))
            return in_the_way(p, err);
    }
    if (fd < 0)
        return sm_error_errno(err, errno, "cannot %s %s", found ? "open" : "make", p->partial);
    struct stat st;
    if (fstat(fd, &st) != 0)
        return sm_error_errno(err, errno, "cannot look at %s", p->partial);
    if (found && (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink > 1))
        return in_the_way(p, err);
    int rc = sm_lock_try(fd, LOCK_EX);
    if (rc == SM_LOCK_TAKEN)
        return sm_error_set(err, SM_EBUSY, "%s is being written by somebody else", p->name);
    if (rc)
        return sm_error_errno(err, errno, "cannot lock %s", p->partial);
    if (!leads_to(p->dir, p->partial, &st))
        return AGAIN;
    if (found && (!resume || (st.st_mode & 077) != 0)) {
        if (unlinkat(p->dir, p->partial, 0) != 0 && errno != ENOENT)
            return sm_error_errno(err, errno, "cannot remove %s", p->partial);
        return AGAIN;
    }
    p->fd = sm_steal_fd(&fd);
    return 0;
}

int sm_partial_open(struct sm_partial *p, int dir, const char *name,
    const struct sm_partial_options *options, sm_error *err)
{
    static const struct sm_partial_options defaults;
    const struct sm_partial_options *o = options ? options : &defaults;
    struct sm_partial made = {.dir = dir,
        .name = strdup(name),
        .fd = -1,
        .calls = {
            o->calls.sync ? o->calls.sync : fsync, o->calls.rename ? o->calls.rename : renameat}};
    *p = SM_PARTIAL_NONE;
    if (o->partial)
        made.partial = strdup(o->partial);
    else if (asprintf(&made.partial, "%s.partial", name) < 0)
        made.partial = NULL;
    int rc = made.name && made.partial ? AGAIN : sm_error_set(err, SM_ENOMEM, "out of memory");
    int64_t deadline = sm_deadline(o->wait_ms);
    while (rc == AGAIN || (rc == -SM_EBUSY && sm_lock_again(deadline, POLL_MS)))
        rc = try_open(&made, o->resume, err);
    if (rc) {
        free(made.name);
        free(made.partial);
        return rc;
    }
    *p = made;
    return 0;
}

static int sync_directory_of(int dir, const char *name)
{
    auto_free char *copy = strdup(name);
    if (!copy)
        return -1;
    auto_fd fd = openat(dir, dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -1 : fsync(fd);
}

int sm_partial_commit(struct sm_partial *p, enum sm_partial_sync sync, sm_error *err)
{
    struct stat st;
    if (sync != SM_PARTIAL_NO_SYNC && p->calls.sync(p->fd) != 0)
        return sm_error_errno(err, errno, "cannot bring %s to disk", p->partial);
    if (fstat(p->fd, &st) != 0 || !leads_to(p->dir, p->partial, &st))
        return sm_error_set(
            err, SM_EBUSY, "somebody has put something else in place of %s", p->partial);
    if (p->calls.rename(p->dir, p->partial, p->dir, p->name) != 0)
        return sm_error_errno(err, errno, "cannot rename %s to %s", p->partial, p->name);
    /* From here on the file is there; a directory that cannot be flushed only delays durability. */
    free(sm_steal_ptr(&p->partial));
    if (sync == SM_PARTIAL_SYNC_ALL)
        (void)sync_directory_of(p->dir, p->name);
    return 0;
}

void sm_partial_leave(struct sm_partial *p)
{
    free(sm_steal_ptr(&p->partial));
    sm_partial_close(p);
}

void sm_partial_close(struct sm_partial *p)
{
    struct stat st;
    int saved = errno;
    if (p->partial && p->fd >= 0 && fstat(p->fd, &st) == 0 && leads_to(p->dir, p->partial, &st))
        unlinkat(p->dir, p->partial, 0);
    sm_close(p->fd);
    free(p->partial);
    free(p->name);
    *p = SM_PARTIAL_NONE;
    errno = saved;
}

/* ---- bytes ---------------------------------------------------------------------------------- */

int sm_write_all(int fd, const void *data, size_t size)
{
    const char *p = data;
    while (size > 0) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

int sm_write_at(int fd, const void *data, size_t size, uint64_t at)
{
    const char *p = data;
    while (size > 0) {
        ssize_t n = pwrite(fd, p, size, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        at += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

ssize_t sm_read_at(int fd, void *buf, size_t size, uint64_t at)
{
    char *p = buf;
    size_t have = 0;
    while (have < size) {
        ssize_t n = pread(fd, p + have, size - have, (off_t)(at + have));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        have += (size_t)n;
    }
    return (ssize_t)have;
}

int sm_read_file_at(int dir, const char *path, size_t max, char **data, size_t *size, sm_error *err)
{
    auto_fd fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return sm_error_errno(err, errno, "cannot open %s", path);
    struct stat st;
    if (fstat(fd, &st) != 0)
        return sm_error_errno(err, errno, "cannot read %s", path);
    if (!S_ISREG(st.st_mode))
        return sm_error_set(err, SM_EINVAL, "%s is not a regular file", path);
    if ((uint64_t)st.st_size > max)
        return sm_error_set(err, SM_ELIMIT, "%s is larger than %zu bytes", path, max);
    auto_free char *buf = malloc((size_t)st.st_size + 1);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    ssize_t n = sm_read_at(fd, buf, (size_t)st.st_size, 0);
    if (n < 0)
        return sm_error_errno(err, errno, "cannot read %s", path);
    buf[n] = '\0';
    *size = (size_t)n;
    *data = sm_steal_ptr(&buf);
    return 0;
}

/* ---- directories ---------------------------------------------------------------------------- */

DIR *sm_open_dir(int dir, const char *name, int flags)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    if (!list) {
        int saved = errno;
        sm_close(fd);
        errno = saved;
    }
    return list;
}

/* What is in a directory is gone after a crash of the host if the directory is; one that cannot be
 * flushed only delays durability. */
static int make_dir(int dir, const char *path)
{
    if (mkdirat(dir, path, 0700) != 0)
        return errno == EEXIST ? 0 : -1;
    (void)sync_directory_of(dir, path);
    return 0;
}

int sm_make_dirs(int dir, const char *path)
{
    auto_free char *copy = strdup(path);
    if (!copy)
        return -1;
    for (char *p = copy; *p && (p = strchr(p + 1, '/'));) {
        *p = '\0';
        if (make_dir(dir, copy) != 0)
            return -1;
        *p = '/';
    }
    return make_dir(dir, copy);
}

int sm_open_private_dir(const char *path, const char *what, int *fd, sm_error *err)
{
    struct stat st;
    if (sm_make_dirs(AT_FDCWD, path) != 0)
        return sm_error_errno(err, errno, "cannot make the %s %s", what, path);
    auto_fd dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fstat(dir, &st) != 0)
        return sm_error_errno(err, errno, "cannot open the %s %s", what, path);
    if (st.st_uid != geteuid())
        return sm_error_set(err, SM_EPERM,
            "the %s %s belongs to another user (uid %u): name a directory of your own", what, path,
            st.st_uid);
    if (st.st_mode & 022)
        return sm_error_set(err, SM_EPERM,
            "others may write into the %s %s: take that from them (chmod go-w)", what, path);
    *fd = sm_steal_fd(&dir);
    return 0;
}
