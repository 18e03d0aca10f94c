/*
 * What libslirp keeps for a guest, and how it is bounded, whatever the guest does.
 *
 * libslirp has a buffer of 64 KiB (an MTU) for each frame that it keeps, and two of 128 KiB for
 * each connection. What it may keep is decided before it sees a frame: the number of sockets (of
 * them so many for UDP and echo), of connections under way, of segments that are not in order
 * (flows.h). It gets no data in a SYN. A new connection for which there is no socket takes that of
 * the connection that was idle longest, if one was idle long enough; else the frame is dropped.
 *
 * Threads: the loop's alone; the counters are read by anybody.
 */
#ifndef SM_NET_SOCKETS_H
#define SM_NET_SOCKETS_H

#include <stdatomic.h>

#include "net/flows.h"

struct sm_known_fd;

struct sm_sockets {
    unsigned max;
    /* Ends a connection for libslirp, by a reset of the guest's, which closes its socket;
     * `for_guest`: for the guest as well, by a reset of its peer's. */
    void (*end)(void *arg, const struct sm_flow *flow, bool for_guest);
    void *end_arg;
    atomic_uint *n;               /* open now */
    atomic_ullong *socket_limit;  /* frames dropped because they wanted one more */
    atomic_ullong *segment_limit; /* TCP segments dropped because too many are not in order */
    struct sm_flows flows;
    struct sm_flow *spare;           /* for the connection that a SYN may open */
    unsigned n_udp, n_echoes;        /* sockets */
    uint8_t udp_ports[2][65536 / 8]; /* source ports (v4, v6) that have one */
    struct sm_known_fd *fds;         /* by descriptor */
    size_t n_fds;
};

/* The members before `flows` are the caller's to fill in, the rest is zero. */
void sm_sockets_fini(struct sm_sockets *s);
/* libslirp has gone, and all its sockets. */
void sm_sockets_clear(struct sm_sockets *s);

/* May libslirp get this frame of the guest? */
bool sm_sockets_admit(struct sm_sockets *s, const uint8_t *frame, const struct sm_frame *f);
/* libslirp has opened a socket for it; f NULL: for none. False: there is no memory to keep track of
 * the socket, so libslirp has to go. */
bool sm_sockets_opened(
    struct sm_sockets *s, int fd, const uint8_t *frame, const struct sm_frame *f);
/* Also told of sockets that could not be made. */
void sm_sockets_closed(struct sm_sockets *s, int fd);
/* Ends the connection of a socket, for the guest as well. False: it cannot be ended, for it is not
 * answered yet. */
bool sm_sockets_end(struct sm_sockets *s, int fd);
/* libslirp sends this frame to the guest. */
void sm_sockets_sent(struct sm_sockets *s, const uint8_t *frame, size_t len);

#endif
