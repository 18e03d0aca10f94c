/*
 * Inside of the vsock device: what its parts share.
 *
 *   vsock.c         the virtio device: queues, events, state
 *   packet.c  packets from and to the guest
 *   stream.c  one stream: the socket side, buffering, half close
 *   connect.c  who uses it: connects and listeners of this process, bridges
 *
 * Everything runs on the loop's thread, except for what `lock` covers.
 */
#ifndef SM_DEVICES_VSOCK_IMPL_H
#define SM_DEVICES_VSOCK_IMPL_H

#include <pthread.h>

#include "devices/vsock/vsock.h"

enum { VSOCK_Q_RX = 0, VSOCK_Q_TX = 1, VSOCK_Q_EVENT = 2 };

#define VSOCK_HEADER_BYTES 44u

enum vsock_op {
    VSOCK_OP_REQUEST = 1,
    VSOCK_OP_RESPONSE = 2,
    VSOCK_OP_RST = 3,
    VSOCK_OP_SHUTDOWN = 4,
    VSOCK_OP_RW = 5,
    VSOCK_OP_CREDIT_UPDATE = 6,
    VSOCK_OP_CREDIT_REQUEST = 7,
};

#define VSOCK_TYPE_STREAM 1u

#define VSOCK_SHUTDOWN_RCV  1u /* the sender of the packet will receive no more */
#define VSOCK_SHUTDOWN_SEND 2u
#define VSOCK_SHUTDOWN_BOTH 3u

struct vsock_header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t len;
    uint16_t type, op;
    uint32_t flags;
    uint32_t buf_alloc, fwd_cnt;
};

struct vsock_connect;

enum vsock_stream_state {
    STREAM_CONNECTING, /* REQUEST is to be sent or under way */
    STREAM_ESTABLISHED,
    STREAM_RESETTING, /* only an RST is still to be sent */
    STREAM_ORPHAN,    /* the guest's side is gone; what is buffered goes to the socket yet */
};

struct vsock_stream {
    struct sm_vsock *vsock;
    uint32_t host_port, guest_port;
    enum vsock_stream_state state;
    struct vsock_stream *hash_next;    /* not for orphans */
    struct vsock_stream *next, **link; /* all streams */
    struct vsock_stream *ready_next;
    bool in_ready;

    int fd; /* -1: closed already */
    struct sm_loop_watch *watch;
    bool watch_out;                /* room is asked for */
    bool readable;                 /* the socket may have data (edge-triggered) */
    bool host_eof, host_hup;       /* the socket's other end: sends no more; is gone */
    bool guest_eof;                /* the guest sends no more */
    bool guest_deaf;               /* the guest receives no more */
    struct vsock_connect *connect; /* who waits for the RESPONSE */
    bool stranger;                 /* counted as such */

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

/* A wish to be connected to a guest port: of a thread that waits in sm_vsock_connect, or of a socket that is
 * to be bridged. */
struct vsock_connect {
    uint32_t port;
    struct vsock_connect *next;  /* in waiting, under the lock */
    struct vsock_stream *stream; /* once begun */
    int fd;        /* the caller's end; bridge: its socket, until it is the stream's */
    bool bridge;   /* from malloc, and in bridges: */
    bool stranger; /* counted as such, as long as there is no stream */
    void (*connected)(int fd, uint32_t host_port);
    uint8_t first[SM_VSOCK_FIRST], first_len;
    struct vsock_connect *next_bridge;
    int64_t deadline_ms;
    bool done; /* under the lock, as the rest */
    enum sm_code code;
    const char *why;
};

struct vsock_listener {
    uint32_t port;
    sm_vsock_accept_fn *fn;
    void *arg;
    struct vsock_listener *next;
};

struct vsock_reset { /* an RST for packets that belong to no stream */
    uint64_t cid;
    uint32_t host_port, guest_port;
    uint16_t type;
};

#define VSOCK_BUCKETS 256u /* power of two */
#define VSOCK_RESETS  64u

struct sm_vsock {
    struct sm_virtio_dev dev;
    uint64_t guest_cid;
    unsigned max_streams, n_streams;
    uint32_t next_port;

    struct vsock_stream *streams;
    struct vsock_stream *buckets[VSOCK_BUCKETS];
    struct vsock_stream *ready, **ready_tail;
    struct vsock_reset resets[VSOCK_RESETS];
    unsigned n_resets;
    struct sm_loop_timer *tx_timer; /* for tx buffers that the guest has not got back yet */

    bool hold;            /* after a load: no connections before sm_vsock_transport_reset */
    bool reset_wanted;    /* no event buffer was there */
    bool reset_under_way; /* and the guest has not returned a buffer since event_mark */
    uint16_t event_mark;
    bool ended;      /* sm_vsock_end was called */
    bool clean_load; /* the loaded state says that no stream was open */

    struct vsock_listener *listeners;
    struct sm_vsock_stats stats;

    sm_vsock_lead_fn *lead; /* where connections to other ports lead */
    void *lead_arg;

    struct vsock_connect *bridges; /* waiting or begun; with the streams at most max_streams */
    unsigned n_bridges;
    unsigned n_strangers; /* of the streams and connects */
    struct sm_loop_timer *bridge_timer;
    bool bridges_tick;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a connect is done */
    struct vsock_connect *waiting, **waiting_tail;
};

/* ---- packet.c */
/* Takes what the guest has sent, then pumps. */
void sm_vsock_serve_tx(struct sm_vsock *vsock);
void sm_vsock_tx_timer(void *vsock);
/* Sends what is ready as far as the guest has buffers, and publishes. */
void sm_vsock_pump(struct sm_vsock *vsock);
/* Has sm_vsock_pump run soon, for callers that must not touch guest memory now. */
void sm_vsock_pump_later(struct sm_vsock *vsock);
static inline bool sm_vsock_open(const struct sm_vsock *vsock)
{
    return vsock->dev.active && !vsock->ended && !vsock->hold && !vsock->reset_wanted &&
           !vsock->reset_under_way;
}

/* ---- stream.c */
struct vsock_stream *sm_vsock_find(struct sm_vsock *vsock, uint32_t host_port, uint32_t guest_port);
/* A new stream over fd (non-blocking; taken over in any case). NULL: out of memory or streams. */
struct vsock_stream *sm_vsock_stream_create(struct sm_vsock *vsock, uint32_t host_port,
    uint32_t guest_port, enum vsock_stream_state state, int fd);
/* Begins to watch the socket: the connection stands. */
bool sm_vsock_stream_establish(struct vsock_stream *s);
void sm_vsock_stream_free(struct vsock_stream *s);
/* Closes the socket, and lets the guest know by an RST. The stream is freed when that is sent. */
void sm_vsock_stream_kill(struct vsock_stream *s);
/* The guest's side has gone (RST came). */
void sm_vsock_stream_gone(struct vsock_stream *s);
/* Puts the stream among those that pump looks at, if it has anything to send. */
void sm_vsock_stream_ready(struct vsock_stream *s);
bool sm_vsock_stream_wants(const struct vsock_stream *s);
uint32_t sm_vsock_stream_credit(const struct vsock_stream *s);
/* Data from the guest, at most the credit that it has. False: out of memory. */
bool sm_vsock_stream_feed(struct vsock_stream *s, const struct iovec *iov, unsigned n, size_t len);
/* Reads from the socket; 0: nothing now (the stream's flags tell why). */
size_t sm_vsock_stream_fill(struct vsock_stream *s, struct iovec *iov, unsigned n);
void sm_vsock_stream_guest_shutdown(struct vsock_stream *s, unsigned flags);

/* ---- connect.c */
/* Begins the connects that wait. */
void sm_vsock_host_open(struct sm_vsock *vsock);
/* The end of a connect, which is not there any more afterwards: SM_OK, or why not (static text). */
void sm_vsock_connect_done(
    struct sm_vsock *vsock, struct vsock_connect *c, enum sm_code code, const char *why);
/* Ends those that wait. */
void sm_vsock_host_fail(struct sm_vsock *vsock, enum sm_code code, const char *why);
/* A socket for the guest's connection to a host port; -1: nobody there. *listener is the in-process one,
 * whose end of the pair is *accepted; it is told after the stream stands. */
int sm_vsock_host_accept(
    struct sm_vsock *vsock, uint32_t port, struct vsock_listener **listener, int *accepted);
void sm_vsock_host_fini(struct sm_vsock *vsock);
int sm_vsock_host_init(struct sm_vsock *vsock, sm_error *err);

#endif
