/* One descriptor for several. See either.h. */
#include "util/either.h"

#include <errno.h>
#include <sys/epoll.h>

#include "util/cleanup.h"
#include "util/error.h"

int sm_either_make(const int *fds, unsigned n, int *fd, sm_error *err)
{
    auto_fd all = epoll_create1(EPOLL_CLOEXEC);
    int rc = all < 0 ? -1 : 0;
    for (unsigned i = 0; i < n && !rc; i++) {
        struct epoll_event event = {.events = EPOLLIN};
        rc = epoll_ctl(all, EPOLL_CTL_ADD, fds[i], &event);
    }
    if (rc)
        return sm_error_errno(err, errno, "cannot watch several descriptors as one");
    *fd = sm_steal_fd(&all);
    return 0;
}
