/*
 * Closes a descriptor without waiting for what the close sets off.
 *
 * The last close of a VM waits 12 to 24 ms for SRCU grace periods, in the caller's own time, also
 * when the process exits. A descriptor that is under way in a unix socket which can only be reached
 * through that very socket is garbage; the kernel's collector for that (a work queue since Linux
 * 6.9) drops it, and so does the waiting. Older kernels collect in the close of the socket: there
 * nothing is won nor lost. A collector that is busy may leave it to the next close of a unix
 * socket, anybody's. Where sockets cannot be had it is an ordinary close. The sockets are streams,
 * since the lists of system calls have no others (scripts/system-calls).
 *
 * System calls: socketpair(AF_UNIX), sendmsg, close.
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hypervisor/kvm/kvm.h"
#include "util/cleanup.h"
#include "util/rights.h"

void sm_kvm_dispose(int fd)
{
    int pair[2];
    if (fd < 0)
        return;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
        const int fds[2] = {fd, pair[1]}; /* the receiving end travels to itself */
        SM_RIGHTS(2) control = {0};
        char byte = 0;
        struct iovec iov = {.iov_base = &byte, .iov_len = 1};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        sm_rights_put(&msg, control.bytes, fds, 2);
        (void)!sendmsg(pair[0], &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        sm_close(fd); /* not the last reference, if the message was taken */
        sm_close(pair[1]);
        sm_close(pair[0]); /* last: this close calls the collector, and then all is garbage */
        return;
    }
    sm_close(fd);
}
