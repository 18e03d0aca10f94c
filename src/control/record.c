/* Records between processes. See record.h. */
#include "control/record.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "util/cleanup.h"
#include "util/rights.h"

static int put(
    int socket, const void *record, size_t size, const int *fds, unsigned n_fds, int flags)
{
    SM_RIGHTS(SM_RECORD_MAX_FDS) control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)record, .iov_len = size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    sm_rights_put(&msg, control.bytes, fds, n_fds);
    ssize_t n;
    while ((n = sendmsg(socket, &msg, MSG_NOSIGNAL | flags)) < 0 && errno == EINTR)
        continue;
    return n < 0 ? -errno : 0;
}

int sm_record_send(int socket, const void *record, size_t size, const int *fds, unsigned n_fds)
{
    return put(socket, record, size, fds, n_fds, 0);
}

int sm_record_send_now(int socket, const void *record, size_t size, const int *fds, unsigned n_fds)
{
    return put(socket, record, size, fds, n_fds, MSG_DONTWAIT);
}

static void close_all(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        sm_close(fds[i]);
}

/* All descriptors that came, be there room for them in what the reader has or not. */
static unsigned came_with(struct msghdr *msg, int came[SM_RECORD_MAX_FDS])
{
    unsigned n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        unsigned more = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(came + n, CMSG_DATA(c), more * sizeof(int));
        n += more;
    }
    return n;
}

static ssize_t take(
    int socket, void *record, size_t size, int *fds, unsigned max_fds, unsigned *n_fds, int flags)
{
    SM_RIGHTS(SM_RECORD_MAX_FDS) control;
    int came[SM_RECORD_MAX_FDS];
    struct iovec iov = {.iov_base = record, .iov_len = size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (max_fds) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof(control.bytes);
    }
    ssize_t n;
    while ((n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | flags)) < 0 && errno == EINTR)
        continue;
    if (n < 0)
        return errno == ECONNRESET ? 0 : -errno;
    unsigned n_came = max_fds ? came_with(&msg, came) : 0;
    if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || n_came > max_fds) {
        close_all(came, n_came);
        return -EPROTO;
    }
    if (n_came)
        memcpy(fds, came, n_came * sizeof(int));
    if (n_fds)
        *n_fds = n_came;
    return n;
}

ssize_t sm_record_take(
    int socket, void *record, size_t size, int *fds, unsigned max_fds, unsigned *n_fds)
{
    return take(socket, record, size, fds, max_fds, n_fds, 0);
}

ssize_t sm_record_take_now(
    int socket, void *record, size_t size, int *fds, unsigned max_fds, unsigned *n_fds)
{
    return take(socket, record, size, fds, max_fds, n_fds, MSG_DONTWAIT);
}

ssize_t sm_record_peek(int socket, void *record, size_t size)
{
    struct iovec iov = {.iov_base = record, .iov_len = size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;
    while ((n = recvmsg(socket, &msg, MSG_PEEK | MSG_DONTWAIT)) < 0 && errno == EINTR)
        continue;
    if (n < 0)
        return errno == ECONNRESET ? 0 : -errno;
    return msg.msg_flags & MSG_TRUNC ? -EPROTO : n;
}
