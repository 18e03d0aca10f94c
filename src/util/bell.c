/*
 * A bell is an eventfd. See bell.h.
 *
 * System calls: eventfd2, read, write.
 */
#include "util/bell.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "util/cleanup.h"
#include "util/error.h"

int sm_bell_make(struct sm_bell *bell, sm_error *err)
{
    bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return bell->fd < 0 ? sm_error_errno(err, errno, "cannot make an eventfd") : 0;
}

/* Fails only where it would count beyond 64 bits: it is rung then. */
void sm_bell_ring(const struct sm_bell *bell)
{
    (void)eventfd_write(bell->fd, 1);
}

bool sm_bell_clear(const struct sm_bell *bell)
{
    eventfd_t times;
    return eventfd_read(bell->fd, &times) == 0;
}

int sm_bell_fd(const struct sm_bell *bell)
{
    return bell->fd;
}

void sm_bell_close(struct sm_bell *bell)
{
    sm_close(sm_steal_fd(&bell->fd));
}
