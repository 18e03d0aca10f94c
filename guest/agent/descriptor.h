/* The end of a descriptor behind a call that may have failed. */
#ifndef SM_AGENT_DESCRIPTOR_H
#define SM_AGENT_DESCRIPTOR_H

#include <errno.h>
#include <unistd.h>

/* Closes it, if it is one, and returns rc; errno stays that call's. */
static inline int close_after(int fd, int rc)
{
    int errnum = errno;
    if (fd >= 0)
        close(fd);
    errno = errnum;
    return rc;
}

#endif
