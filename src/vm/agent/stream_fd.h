/*
 * A descriptor of the caller's that we read or write without ever blocking on it, and without
 * changing its flags, which it may share with other processes. Pipes and terminals are opened a
 * second time through /proc to have flags of our own; sockets have MSG_DONTWAIT; where neither is
 * possible poll(2) is trusted, and little is written at a time.
 */
#ifndef SM_VM_AGENT_STREAM_FD_H
#define SM_VM_AGENT_STREAM_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <supermachine.h>

struct sm_stream_fd {
    int fd; /* ours; -1: none. Poll it before every read or write. */
    bool socket;
    size_t chunk; /* write no more at once */
};

#define SM_STREAM_FD_NONE ((struct sm_stream_fd){.fd = -1})

int sm_stream_fd_open(struct sm_stream_fd *s, int fd, bool writing, sm_error *err);
void sm_stream_fd_close(struct sm_stream_fd *s);

/* As read(2) and write(2), errno included; EAGAIN: not now. EPIPE comes without a signal if SIGPIPE
 * is blocked in the thread. */
ssize_t sm_stream_fd_read(const struct sm_stream_fd *s, void *buf, size_t size);
ssize_t sm_stream_fd_write(const struct sm_stream_fd *s, const void *buf, size_t size);

#endif
