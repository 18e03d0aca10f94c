/*
 * Records between the processes of a VM: one message each, over a SOCK_SEQPACKET socket, with
 * descriptors where the reader asks for some.
 *
 * Who reads says how long a record may be and how many descriptors may come with it: of what the
 * machine's process sends none may, and what does not fit is refused as a whole, its descriptors
 * closed. A record is read whole or not at all, so there is no state in between.
 *
 * System calls: sendmsg, recvmsg, close.
 */
#ifndef SM_CONTROL_RECORD_H
#define SM_CONTROL_RECORD_H

#include <stddef.h>
#include <sys/types.h>

#include <supermachine.h>

#define SM_RECORD_MAX     (64u << 10) /* bytes; a socket's buffer holds it */
#define SM_RECORD_MAX_FDS 8

/* Sends it, waiting for room; the descriptors stay the caller's. -errno, EPIPE: nobody reads. */
int sm_record_send(int socket, const void *record, size_t size, const int *fds, unsigned n_fds);
/* Likewise, but -EAGAIN where there is no room. */
int sm_record_send_now(int socket, const void *record, size_t size, const int *fds, unsigned n_fds);

/* take waits for one, take_now does not; peek looks whether there is one, leaves it, and takes no
 * descriptors. Its bytes; 0: the other end is closed; -errno: EAGAIN, or EPROTO, which is a record
 * that is longer than `size`, or has more than max_fds descriptors. *n_fds of fds are the caller's
 * then. */
ssize_t sm_record_take(
    int socket, void *record, size_t size, int *fds, unsigned max_fds, unsigned *n_fds);
ssize_t sm_record_take_now(
    int socket, void *record, size_t size, int *fds, unsigned max_fds, unsigned *n_fds);
ssize_t sm_record_peek(int socket, void *record, size_t size);

#endif
