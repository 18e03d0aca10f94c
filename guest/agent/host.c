/* The one peer that is trusted: see host.h. */
#include "host.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

bool host_is(const struct sockaddr_vm *peer)
{
    return peer->svm_family != AF_VSOCK || peer->svm_cid == VMADDR_CID_HOST;
}

int host_accept(int listener)
{
    struct sockaddr_vm peer = {0};
    socklen_t len = sizeof(peer);
    int fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);
    if (fd < 0 || host_is(&peer))
        return fd;
    close(fd);
    errno = EPERM;
    return -1;
}
