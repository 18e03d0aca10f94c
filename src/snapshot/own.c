/* Snapshot files that others may write are copied. See reader.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/reader.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"

#define COPY_BYTES (1u << 20)

static bool is_ours(const struct stat *st)
{
    return (st->st_uid == geteuid() || st->st_uid == 0) && !(st->st_mode & (S_IWGRP | S_IWOTH));
}

/* A file without a name; also on file systems that lack O_TMPFILE. */
static int nameless(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
        return fd;
    auto_free char *path = NULL;
    if (asprintf(&path, "%s/snapshot-XXXXXX", dir) < 0)
        return -1;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

static int copy_range(int from, int to, void *buf, off_t at, off_t end)
{
    while (at < end) {
        ssize_t n =
            sm_read_at(from, buf, (size_t)SM_MIN(end - at, (off_t)COPY_BYTES), (uint64_t)at);
        if (n == 0)
            return 0; /* cut short meanwhile: the copy's reader will say so */
        if (n < 0 || sm_write_at(to, buf, (size_t)n, (uint64_t)at) != 0)
            return errno;
        at += n;
    }
    return 0;
}

/* The data between the holes. */
static int copy_data(int from, int to, off_t size)
{
    auto_free void *buf = malloc(COPY_BYTES);
    int e = !buf ? ENOMEM : ftruncate(to, size) < 0 ? errno : 0;
    for (off_t at = 0, hole; at < size && !e; at = hole) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO) /* nothing but a hole */
            break;
        if (data < 0) /* no such thing here: all of it */
            data = at;
        hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0 || hole > size)
            hole = size;
        e = copy_range(from, to, buf, data, hole);
    }
    return e;
}

int sm_snapshot_own(int *fd, const char *dir, uint64_t bytes, bool *copied, sm_error *err)
{
    struct stat st;
    *copied = false;
    if (fstat(*fd, &st) < 0)
        return sm_error_errno(err, errno, "cannot look at the snapshot");
    if (is_ours(&st))
        return 0;
    auto_fd copy = nameless(dir);
    off_t size = (off_t)SM_MIN((uint64_t)st.st_size, bytes);
    int e = copy < 0 ? errno : 0;
    if (!e && ioctl(copy, FICLONE, *fd) < 0)
        e = copy_data(*fd, copy, size);
    else if (!e && ftruncate(copy, size) < 0)
        e = errno;
    if (e)
        return sm_error_errno(
            err, e, "others may write the snapshot, and it cannot be copied to %s", dir);
    sm_close(*fd);
    *fd = sm_steal_fd(&copy);
    *copied = true;
    return 0;
}
