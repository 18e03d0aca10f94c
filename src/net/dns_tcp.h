/*
 * How a guest's TCP connections to its name server come to us.
 *
 * The TCP is libslirp's, which knows only connections to somewhere on the host. So each one gets a
 * listener of its own on the host's loopback, at a port that the kernel chooses, for as long as it
 * takes libslirp to connect; the guest's segments are aimed there, and those that come back have
 * the name server's address again. Who is accepted is compared with libslirp's own socket: another
 * process of the host that is quicker is sent away.
 *
 * Tried and dropped: libslirp's own way to a unix socket (slirp_add_unix). It answers the guest's
 * SYN before it has a socket, so nothing bounds what it keeps for those, and has no IPv6.
 *
 * Bounds: SM_DNS_TCP_MAX connections, each of libslirp's with what that costs (sockets.h) and a
 * dns_stream. A new one takes the place of the one that has ended, or else asks nothing, longest.
 *
 * Threads: the loop's alone.
 */
#ifndef SM_NET_DNS_TCP_H
#define SM_NET_DNS_TCP_H

#include "net/dns_stream.h"
#include "net/frame.h"

#define SM_DNS_TCP_MAX 16

struct sm_dns_tcp;

/* A connection of the guest's; libslirp's side of it. */
struct sm_dns_tcp_slot {
    struct sm_dns_tcp *tcp;
    bool v6;
    uint16_t guest_port;
    uint16_t port; /* of the loopback; 0: free */
    uint32_t syn;  /* number of the SYN that opened it */
    int fd;        /* libslirp's socket; -1: free, or the SYN is with libslirp just now */
    int listener;  /* -1: it has been accepted */
    struct sm_loop_watch *watch;
    struct sm_dns_stream *stream; /* NULL: not accepted yet */
    int64_t used_ms;
};

struct sm_dns_tcp {
    struct sm_loop *loop;
    struct sm_dns_proxy *proxy;
    /* Ends the connection of libslirp's socket, which tells of its closing at once; false: it
     * cannot be ended yet. */
    bool (*end)(void *arg, int fd);
    void *end_arg;
    struct sm_loop_timer *timer;
    bool ticking; /* the timer is armed */
    uint32_t last_id;
    uint8_t *frame; /* room for one to the guest; NULL: there never was a connection */
    struct sm_dns_tcp_slot slots[SM_DNS_TCP_MAX];
};

int sm_dns_tcp_init(struct sm_dns_tcp *t, struct sm_loop *loop, struct sm_dns_proxy *proxy,
    bool (*end)(void *arg, int fd), void *end_arg, sm_error *err);
void sm_dns_tcp_fini(struct sm_dns_tcp *t);
/* libslirp has gone, and all its sockets. */
void sm_dns_tcp_clear(struct sm_dns_tcp *t);

/* A segment of the guest's for port 53 of its name server: aims it at what libslirp shall connect
 * to. False: refused. */
bool sm_dns_tcp_aim(struct sm_dns_tcp *t, uint8_t *frame, struct sm_frame *f);
/* libslirp has opened a socket for the segment f, within the input of it; is done with one. */
void sm_dns_tcp_opened(struct sm_dns_tcp *t, int fd, const struct sm_frame *f);
void sm_dns_tcp_closed(struct sm_dns_tcp *t, int fd);
/* libslirp has had the segment f that was aimed, or was not given it: a listener for which it has
 * opened no socket then waits for nobody. */
void sm_dns_tcp_passed(struct sm_dns_tcp *t, const struct sm_frame *f);

/* The frame as the guest is to see it: the same one, or a copy that lives until the next call. */
const void *sm_dns_tcp_unaim(struct sm_dns_tcp *t, const void *frame, size_t len);

/* The proxy's answer to a question that came over TCP. */
void sm_dns_tcp_answer(
    struct sm_dns_tcp *t, const struct sm_dns_client *client, const uint8_t *msg, size_t len);

#endif
