/*
 * The streams of a vsock device: of each the side of the socket, what waits for it, and what the
 * guest is to be told.
 *
 * The socket is watched edge-triggered, and what the edges say is remembered (readable, host_hup):
 * a stream that the guest has no credit or buffers for costs no wake-ups. Room to write is asked
 * for only while something is buffered, since every read of the other end would wake us otherwise.
 *
 * Ends. Host closes or shuts down writing: after the last byte the guest gets SHUTDOWN(send), and
 * (receive) as well if nobody reads any more. Guest shuts down: after the last byte has left the
 * buffer the socket is shut down the same way; when both directions are, we answer by RST, which
 * ends the stream for the guest. If the guest's RST comes after its SHUTDOWN while bytes are still
 * buffered, the stream lives on without the guest (an orphan) until they are written: a slow reader
 * must not lose the end of the output. A guest that never sends a byte and first says that it will
 * receive none has refused: a TCP socket's other end gets a reset, and not the end of nothing.
 *
 * Order of the files: stream < packet < connect < device. A stream names nobody above it: who makes
 * the streams says whom to tell that there is something to send (pump), and who waits for a stream
 * is told by its `answered`.
 *
 * Threads: the loop's alone. Cost: at most SM_VSOCK_BUF_ALLOC bytes of a stream wait here, what its
 * credit allows.
 */
#ifndef SM_DEVICES_VSOCK_STREAM_H
#define SM_DEVICES_VSOCK_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "devices/vsock/header.h"
#include "devices/vsock/vsock.h"

enum vsock_stream_state {
    STREAM_CONNECTING, /* REQUEST is to be sent or under way */
    STREAM_ASKING,     /* the guest's REQUEST has no answer, and the stream no socket, yet */
    STREAM_ESTABLISHED,
    STREAM_RESETTING, /* only an RST is still to be sent */
    STREAM_ORPHAN,    /* the guest's side is gone; what is buffered goes to the socket yet */
};

/* How a connect has come out: SM_OK, or why not (static text). */
typedef void vsock_answered_fn(void *arg, enum sm_code code, const char *why);

struct vsock_stream {
    struct vsock_streams *all;
    uint32_t host_port, guest_port;
    enum vsock_stream_state state;
    struct vsock_stream *hash_next;    /* not for orphans */
    struct vsock_stream *next, **link; /* all streams */
    struct vsock_stream *ready_next;
    bool in_ready;

    int fd; /* -1: closed already */
    struct sm_loop_watch *watch;
    bool watch_out;              /* room is asked for */
    bool readable;               /* the socket may have data (edge-triggered) */
    bool host_eof, host_hup;     /* the socket's other end: sends no more; is gone */
    bool guest_eof;              /* the guest sends no more */
    bool guest_deaf;             /* the guest receives no more */
    bool refused;                /* and that was the first that it said */
    vsock_answered_fn *answered; /* who waits for an answer is told, once; NULL: nobody */
    void *answered_arg;
    bool stranger; /* counted as such */

    unsigned send;            /* 1 << op: packets without data that are to be sent */
    unsigned shut, shut_sent; /* VSOCK_SHUTDOWN_*: what the guest is to know, and knows */

    uint32_t peer_buf_alloc, peer_fwd_cnt; /* the guest's credit */
    uint32_t tx_cnt;                       /* bytes sent to the guest */
    bool credit_asked;
    uint32_t rx_cnt, fwd_cnt, fwd_told; /* bytes from the guest: got, passed on, and told so */

    uint8_t first[SM_VSOCK_FIRST]; /* goes to the guest before what the socket has */
    uint8_t first_len;

    uint8_t *buf; /* from the guest, the socket was full: buf[start, start + len) */
    size_t buf_start, buf_len, buf_size;
};

#define VSOCK_BUCKETS 256u /* power of two */

struct vsock_streams {
    struct sm_loop *loop;
    void (*pump)(void *arg); /* what is ready can be sent now */
    void *pump_arg;
    unsigned max, n;
    unsigned n_strangers; /* of them, and of the connects that have no stream yet */
    struct vsock_stream *list;
    struct vsock_stream *buckets[VSOCK_BUCKETS];
    struct vsock_stream *ready, **ready_tail; /* have something to send */
};

void sm_vsock_streams_init(struct vsock_streams *all, struct sm_loop *loop, unsigned max,
    void (*pump)(void *arg), void *pump_arg);
void sm_vsock_streams_fini(struct vsock_streams *all);

struct vsock_stream *sm_vsock_find(
    struct vsock_streams *all, uint32_t host_port, uint32_t guest_port);
/* The first that is ready, which is not any more then; NULL: none. */
struct vsock_stream *sm_vsock_take_ready(struct vsock_streams *all);

/* A new stream over fd (non-blocking; taken over in any case). NULL: out of memory or streams. */
struct vsock_stream *sm_vsock_stream_create(struct vsock_streams *all, uint32_t host_port,
    uint32_t guest_port, enum vsock_stream_state state, int fd);
/* Begins to watch the socket: the connection stands. */
bool sm_vsock_stream_establish(struct vsock_stream *s);
/* Tells who waits for the stream, if anybody does. */
void sm_vsock_stream_answer(struct vsock_stream *s, enum sm_code code, const char *why);
void sm_vsock_stream_free(struct vsock_stream *s);
/* Closes the socket, and lets the guest know by an RST. The stream is freed when that is sent. */
void sm_vsock_stream_kill(struct vsock_stream *s);
/* The guest's side has gone (RST came). */
void sm_vsock_stream_gone(struct vsock_stream *s);
/* Puts the stream among those that are ready, if it has anything to send. */
void sm_vsock_stream_ready(struct vsock_stream *s);
bool sm_vsock_stream_wants(const struct vsock_stream *s);
uint32_t sm_vsock_stream_credit(const struct vsock_stream *s);
/* Data from the guest, at most the credit that it has. False: out of memory. */
bool sm_vsock_stream_feed(struct vsock_stream *s, const struct iovec *iov, unsigned n, size_t len);
/* Reads from the socket; 0: nothing now (the stream's flags tell why). */
size_t sm_vsock_stream_fill(struct vsock_stream *s, struct iovec *iov, unsigned n);
void sm_vsock_stream_guest_shutdown(struct vsock_stream *s, unsigned flags);

#endif
