/*
 * Descriptors that travel with a message over a unix socket (SCM_RIGHTS): how they are put into
 * one. Who takes them out says himself what he does with more than he wants.
 */
#ifndef SM_UTIL_RIGHTS_H
#define SM_UTIL_RIGHTS_H

#include <string.h>
#include <sys/socket.h>

/* Room for n of them, which sendmsg(2) and recvmsg(2) want aligned; all zero before a send. */
#define SM_RIGHTS(n)                                                                               \
    union {                                                                                        \
        struct cmsghdr align;                                                                      \
        char bytes[CMSG_SPACE((n) * sizeof(int))];                                                 \
    }

/* Has msg carry fds; `room` is that of an SM_RIGHTS of at least n_fds. None: msg stays as it is. */
static inline void sm_rights_put(struct msghdr *msg, char *room, const int *fds, unsigned n_fds)
{
    if (!n_fds)
        return;
    msg->msg_control = room;
    msg->msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
    struct cmsghdr *head = CMSG_FIRSTHDR(msg);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
    memcpy(CMSG_DATA(head), fds, n_fds * sizeof(int));
}

#endif
