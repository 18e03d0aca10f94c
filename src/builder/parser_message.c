/*
 * Messages of parsers, as both sides have them. See parser.h.
 *
 * System calls: sendmsg, recvmsg, close.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "builder/parser.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/rights.h"
#include "util/text.h"

struct head {
    uint32_t type, size;
};

int sm_parser_send(
    int socket, uint32_t type, const void *data, size_t size, const int *fds, unsigned n_fds)
{
    struct head head = {type, (uint32_t)size};
    SM_RIGHTS(SM_PARSER_FDS) control = {0};
    struct iovec parts[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)data, size}};
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 2};
    sm_rights_put(&msg, control.bytes, fds, n_fds); /* with the first byte */
    while (parts[0].iov_len + parts[1].iov_len > 0) {
        ssize_t n = sendmsg(socket, &msg, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) /* SO_SNDTIMEO */
            errno = ETIMEDOUT;
        if (n < 0)
            return -1;
        for (int i = 0; i < 2; i++) {
            size_t part = (size_t)n < parts[i].iov_len ? (size_t)n : parts[i].iov_len;
            parts[i].iov_base = (char *)parts[i].iov_base + part;
            parts[i].iov_len -= part;
            n -= (ssize_t)part;
        }
        msg.msg_control = NULL;
        msg.msg_controllen = 0;
    }
    return 0;
}

/* Keeps the first descriptors that came, and no others. */
static void detach(struct msghdr *msg, int fds[SM_PARSER_FDS])
{
    unsigned kept = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (kept < SM_PARSER_FDS && fds[kept] < 0)
                fds[kept++] = fd;
            else
                sm_close(fd);
        }
    }
}

/* All `size` bytes: 1; 0 where it ends before the first one. Where there is a deadline SO_RCVTIMEO
 * bounds one wait, and this all that a sender may make of them, byte by byte. */
static int read_all(int socket, int64_t deadline, void *to, size_t size, int fds[SM_PARSER_FDS])
{
    for (size_t have = 0; have < size;) {
        SM_RIGHTS(SM_PARSER_FDS) control;
        struct iovec part = {(char *)to + have, size - have};
        struct msghdr msg = {.msg_iov = &part,
            .msg_iovlen = 1,
            .msg_control = control.bytes,
            .msg_controllen = sizeof(control.bytes)};
        ssize_t n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n > 0)
            detach(&msg, fds);
        if (n == 0 && have > 0)
            errno = EPROTO;
        if (n < 0 && errno == EAGAIN)
            errno = ETIMEDOUT;
        if (n <= 0)
            return n < 0 || have > 0 ? -1 : 0;
        have += (size_t)n;
        if (have < size && sm_deadline_left(deadline) == 0) {
            errno = ETIMEDOUT;
            return -1;
        }
    }
    return 1;
}

int sm_parser_receive(int socket, int64_t deadline, struct sm_parser_message *message)
{
    struct head head;
    for (int i = 0; i < SM_PARSER_FDS; i++)
        message->fds[i] = -1;
    int rc = read_all(socket, deadline, &head, sizeof(head), message->fds);
    if (rc <= 0)
        return rc;
    if (head.size > SM_PARSER_MOST) {
        errno = EPROTO;
        return -1;
    }
    message->type = head.type;
    message->size = head.size;
    rc = head.size ? read_all(socket, deadline, message->data, head.size, message->fds) : 1;
    if (rc == 0)
        errno = EPROTO;
    ((char *)message->data)[head.size] = '\0';
    return rc == 0 ? -1 : rc;
}

int sm_parser_send_end(int socket, int rc, const sm_error *err)
{
    struct sm_parser_end end = {.rc = rc, .err = *err};
    return sm_parser_send(socket, SM_PARSER_END, &end, sizeof(end), NULL, 0);
}

int sm_parser_take_end(const struct sm_parser_end *end, sm_error *err)
{
    if (end->rc == 0)
        return 0;
    int code = end->rc < 0 && end->rc >= -(int)SM_ENETWORK ? -end->rc : (int)SM_ECORRUPT;
    if (err) {
        *err = end->err;
        err->code = (enum sm_code)code;
        err->message[sizeof(err->message) - 1] = '\0';
        sm_text_clean(err->message, false);
    }
    return -code;
}
