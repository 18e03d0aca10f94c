/* Descriptors of the caller's. See stream_fd.h. */
#include "vm/agent/stream_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

/* Opening a character device again is harmless for terminals only: another one (/dev/ptmx, say) may
 * give something new. 136 to 143 are the majors of pseudo-terminals (Linux, devices.txt). */
static bool is_pseudo_terminal(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && major(st->st_rdev) >= 136 && major(st->st_rdev) <= 143;
}

int sm_stream_fd_open(struct sm_stream_fd *s, int fd, bool writing, sm_error *err)
{
    int flags = fcntl(fd, F_GETFL);
    struct stat st;
    if (flags < 0 || fstat(fd, &st))
        return sm_error_errno(err, errno, "descriptor %d cannot be used as a stream", fd);
    if ((flags & O_ACCMODE) == (writing ? O_RDONLY : O_WRONLY))
        return sm_error_set(err, SM_EINVAL, "descriptor %d is not open for %s", fd,
            writing ? "writing" : "reading");

    struct sm_stream_fd fresh = {.fd = -1, .socket = S_ISSOCK(st.st_mode), .chunk = SIZE_MAX};
    if (S_ISFIFO(st.st_mode) || is_pseudo_terminal(&st)) {
        char path[32];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        fresh.fd = open(path, (writing ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    }
    if (fresh.fd < 0) {
        fresh.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fresh.fd < 0)
            return sm_error_errno(err, errno, "cannot duplicate descriptor %d", fd);
        /* A pipe that polls writable has room for a page, a terminal for a few hundred bytes. */
        if (S_ISFIFO(st.st_mode))
            fresh.chunk = 4096;
        else if (S_ISCHR(st.st_mode))
            fresh.chunk = 256;
    }
    *s = fresh;
    return 0;
}

void sm_stream_fd_close(struct sm_stream_fd *s)
{
    sm_close(s->fd);
    s->fd = -1;
}

ssize_t sm_stream_fd_read(const struct sm_stream_fd *s, void *buf, size_t size)
{
    return s->socket ? recv(s->fd, buf, size, MSG_DONTWAIT) : read(s->fd, buf, size);
}

ssize_t sm_stream_fd_write(const struct sm_stream_fd *s, const void *buf, size_t size)
{
    if (s->socket)
        return send(s->fd, buf, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    return write(s->fd, buf, SM_MIN(size, s->chunk));
}
