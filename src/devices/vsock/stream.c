/*
 * The streams of a vsock device. See stream.h.
 *
 * System calls of the device thread: recvmsg, sendmsg, setsockopt(SOL_SOCKET), shutdown.
 */
#include "devices/vsock/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "devices/virtqueue.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/loop.h"

#define WATCH_IN       (SM_LOOP_IN | SM_LOOP_EOF | SM_LOOP_EDGE)
#define BUF_FIRST_SIZE 16384u

static struct vsock_stream **bucket(
    struct vsock_streams *all, uint32_t host_port, uint32_t guest_port)
{
    uint32_t h = (host_port ^ guest_port * 2654435761u) * 2246822519u;
    return &all->buckets[(h >> 16) & (VSOCK_BUCKETS - 1)];
}

struct vsock_stream *sm_vsock_find(
    struct vsock_streams *all, uint32_t host_port, uint32_t guest_port)
{
    struct vsock_stream *s = *bucket(all, host_port, guest_port);
    while (s && (s->host_port != host_port || s->guest_port != guest_port))
        s = s->hash_next;
    return s;
}

struct vsock_stream *sm_vsock_stream_create(struct vsock_streams *all, uint32_t host_port,
    uint32_t guest_port, enum vsock_stream_state state, int fd)
{
    sm_loop_check_here(all->loop);
    struct vsock_stream *s = all->n < all->max ? calloc(1, sizeof(*s)) : NULL;
    if (!s) {
        sm_close(fd);
        return NULL;
    }
    *s = (struct vsock_stream){
        .all = all, .host_port = host_port, .guest_port = guest_port, .state = state, .fd = fd};
    struct vsock_stream **b = bucket(all, host_port, guest_port);
    s->hash_next = *b;
    *b = s;
    s->next = all->list;
    s->link = &all->list;
    if (s->next)
        s->next->link = &s->next;
    all->list = s;
    all->n++;
    return s;
}

static void unhash(struct vsock_stream *s)
{
    struct vsock_stream **link = bucket(s->all, s->host_port, s->guest_port);
    while (*link && *link != s)
        link = &(*link)->hash_next;
    if (*link)
        *link = s->hash_next;
}

static void unready(struct vsock_stream *s)
{
    struct vsock_streams *all = s->all;
    if (!s->in_ready)
        return;
    struct vsock_stream **link = &all->ready;
    while (*link != s)
        link = &(*link)->ready_next;
    *link = s->ready_next;
    if (!s->ready_next)
        all->ready_tail = link;
    s->in_ready = false;
}

static void drop_buffer(struct vsock_stream *s)
{
    free(s->buf);
    s->buf = NULL;
    s->buf_start = s->buf_len = s->buf_size = 0;
}

static void close_socket(struct vsock_stream *s)
{
    sm_loop_remove(s->watch);
    s->watch = NULL;
    if (s->refused && s->rx_cnt == 0) {
        const struct linger reset = {.l_onoff = 1};
        (void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    }
    sm_close(s->fd);
    s->fd = -1;
    s->readable = false;
    drop_buffer(s);
}

void sm_vsock_stream_answer(struct vsock_stream *s, enum sm_code code, const char *why)
{
    vsock_answered_fn *answered = sm_steal_ptr(&s->answered);
    if (answered)
        answered(s->answered_arg, code, why);
}

void sm_vsock_stream_free(struct vsock_stream *s)
{
    sm_loop_check_here(s->all->loop);
    sm_vsock_stream_answer(s, SM_ENOTFOUND, "nobody listens there, or the guest is ending");
    unready(s);
    close_socket(s);
    unhash(s);
    *s->link = s->next;
    if (s->next)
        s->next->link = s->link;
    s->all->n--;
    s->all->n_strangers -= s->stranger;
    free(s);
}

void sm_vsock_stream_kill(struct vsock_stream *s)
{
    sm_loop_check_here(s->all->loop);
    sm_vsock_stream_answer(s, SM_EPROTOCOL, "the guest broke the vsock protocol");
    close_socket(s);
    s->state = STREAM_RESETTING;
    s->send = 1u << VSOCK_OP_RST;
    sm_vsock_stream_ready(s);
}

void sm_vsock_stream_gone(struct vsock_stream *s)
{
    sm_loop_check_here(s->all->loop);
    if (s->guest_eof && s->buf_len > 0) {
        unready(s);
        unhash(s);
        s->hash_next = NULL;
        s->state = STREAM_ORPHAN;
        return;
    }
    if (s->state != STREAM_ORPHAN)
        sm_vsock_stream_free(s);
}

uint32_t sm_vsock_stream_credit(const struct vsock_stream *s)
{
    uint32_t in_flight = s->tx_cnt - s->peer_fwd_cnt;
    return in_flight < s->peer_buf_alloc ? s->peer_buf_alloc - in_flight : 0;
}

bool sm_vsock_stream_wants(const struct vsock_stream *s)
{
    if (s->state == STREAM_ORPHAN)
        return false;
    return s->send || (s->shut & ~s->shut_sent) ||
           (s->state == STREAM_ESTABLISHED && s->readable && sm_vsock_stream_credit(s) > 0);
}

void sm_vsock_stream_ready(struct vsock_stream *s)
{
    sm_loop_check_here(s->all->loop);
    if (s->in_ready || !sm_vsock_stream_wants(s))
        return;
    s->in_ready = true;
    s->ready_next = NULL;
    *s->all->ready_tail = s;
    s->all->ready_tail = &s->ready_next;
}

struct vsock_stream *sm_vsock_take_ready(struct vsock_streams *all)
{
    struct vsock_stream *s = all->ready;
    if (s)
        unready(s);
    return s;
}

/* ---- guest to socket ------------------------------------------------------------------------- */

static void want_out(struct vsock_stream *s, bool want)
{
    if (s->watch && s->watch_out != want) {
        s->watch_out = want;
        sm_loop_modify(s->watch, WATCH_IN | (want ? SM_LOOP_OUT : 0));
    }
}

static void forwarded(struct vsock_stream *s, size_t n)
{
    s->fwd_cnt += (uint32_t)n;
    if (s->state == STREAM_ESTABLISHED && s->fwd_cnt - s->fwd_told >= SM_VSOCK_BUF_ALLOC / 4)
        s->send |= 1u << VSOCK_OP_CREDIT_UPDATE;
}

/* The other end of the socket does not read any more: what comes is dropped. */
static void host_deaf(struct vsock_stream *s)
{
    s->shut |= VSOCK_SHUTDOWN_RCV;
    forwarded(s, s->buf_len);
    drop_buffer(s);
    want_out(s, false);
}

/* Returns the bytes that the socket took. */
static size_t write_socket(struct vsock_stream *s, struct iovec *iov, unsigned n)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t done;
    do
        done = sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (done < 0 && errno == EINTR);
    if (done >= 0)
        return (size_t)done;
    if (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM)
        host_deaf(s);
    return 0;
}

/* Appends all but the first `skip` bytes of iov; the credit has bounded the sum. */
static bool buffer(
    struct vsock_stream *s, const struct iovec *iov, unsigned n, size_t skip, size_t len)
{
    size_t need = s->buf_len + len;
    if (need > s->buf_size) {
        size_t size = s->buf_size ? s->buf_size : BUF_FIRST_SIZE;
        while (size < need)
            size *= 2;
        uint8_t *buf = malloc(size);
        if (!buf)
            return false;
        if (s->buf)
            memcpy(buf, s->buf + s->buf_start, s->buf_len);
        free(s->buf);
        s->buf = buf;
        s->buf_start = 0;
        s->buf_size = size;
    } else if (s->buf_start + need > s->buf_size) {
        memmove(s->buf, s->buf + s->buf_start, s->buf_len);
        s->buf_start = 0;
    }
    sm_iov_read(iov, n, skip, s->buf + s->buf_start + s->buf_len, len);
    s->buf_len = need;
    return true;
}

bool sm_vsock_stream_feed(struct vsock_stream *s, const struct iovec *iov, unsigned n, size_t len)
{
    sm_loop_check_here(s->all->loop);
    size_t done = 0;
    if (s->buf_len == 0 && s->fd >= 0 && !(s->shut & VSOCK_SHUTDOWN_RCV)) {
        struct iovec copy[SM_VIRTQ_MAX_SIZE];
        memcpy(copy, iov, n * sizeof(iov[0]));
        done = write_socket(s, copy, n);
    }
    if (s->fd < 0 || (s->shut & VSOCK_SHUTDOWN_RCV))
        done = len;
    forwarded(s, done);
    if (done == len)
        return true;
    if (!buffer(s, iov, n, done, len - done))
        return false;
    want_out(s, true);
    return true;
}

/* All that the guest has sent is in the socket. May free an orphan. */
static void drained(struct vsock_stream *s)
{
    drop_buffer(s);
    want_out(s, false);
    if (s->state == STREAM_ORPHAN)
        sm_vsock_stream_free(s);
    else if (s->guest_eof && s->guest_deaf)
        sm_vsock_stream_kill(s);
    else if (s->guest_eof && s->fd >= 0)
        shutdown(s->fd, SHUT_WR);
}

/* May free an orphan. */
static void flush(struct vsock_stream *s)
{
    while (s->buf_len > 0) {
        struct iovec iov = {.iov_base = s->buf + s->buf_start, .iov_len = s->buf_len};
        size_t n = write_socket(s, &iov, 1);
        if (n == 0)
            break;
        s->buf_start += n;
        s->buf_len -= n;
        forwarded(s, n);
    }
    if (s->buf_len == 0)
        drained(s);
}

void sm_vsock_stream_guest_shutdown(struct vsock_stream *s, unsigned flags)
{
    sm_loop_check_here(s->all->loop);
    if ((flags & VSOCK_SHUTDOWN_RCV) && !s->guest_deaf) {
        s->guest_deaf = true;
        s->refused = !s->guest_eof && !(flags & VSOCK_SHUTDOWN_SEND);
        s->readable = false;
        if (s->fd >= 0)
            shutdown(s->fd, SHUT_RD);
    }
    s->guest_eof |= (flags & VSOCK_SHUTDOWN_SEND) != 0;
    if (s->guest_eof && s->buf_len == 0)
        drained(s);
}

/* ---- socket to guest ------------------------------------------------------------------------- */

/* Nobody has the other end any more and all it sent has been read, or the guest does not want
 * it. */
static void host_gone(struct vsock_stream *s)
{
    forwarded(s, s->buf_len);
    close_socket(s);
    s->shut = VSOCK_SHUTDOWN_BOTH;
    if (s->guest_eof && s->guest_deaf)
        sm_vsock_stream_kill(s);
}

size_t sm_vsock_stream_fill(struct vsock_stream *s, struct iovec *iov, unsigned n)
{
    sm_loop_check_here(s->all->loop);
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t done;
    if (s->first_len > 0) {
        size_t put = sm_iov_write(iov, n, 0, s->first, s->first_len);
        s->first_len -= (uint8_t)put;
        memmove(s->first, s->first + put, s->first_len);
        return put;
    }
    do
        done = recvmsg(s->fd, &msg, MSG_DONTWAIT);
    while (done < 0 && errno == EINTR);
    if (done > 0)
        return (size_t)done;
    s->readable = false;
    if (done < 0 && errno == EAGAIN)
        return 0;
    s->host_eof = true;
    s->shut |= VSOCK_SHUTDOWN_SEND;
    if (s->host_hup || done < 0)
        host_gone(s);
    return 0;
}

static void on_socket(void *arg, uint32_t events)
{
    struct vsock_stream *s = arg;
    struct vsock_streams *all = s->all;
    if (s->state == STREAM_ORPHAN) {
        if (events & (SM_LOOP_HUP | SM_LOOP_ERR))
            sm_vsock_stream_free(s);
        else
            flush(s);
        return;
    }
    if ((events & SM_LOOP_OUT) && s->buf_len > 0)
        flush(s);
    if (s->state == STREAM_ESTABLISHED && s->fd >= 0) {
        if (events & (SM_LOOP_HUP | SM_LOOP_ERR))
            s->host_hup = true;
        if (s->host_hup && (s->host_eof || s->guest_deaf))
            host_gone(s);
        else if (!s->host_eof && !s->guest_deaf &&
                 (events & (SM_LOOP_IN | SM_LOOP_EOF | SM_LOOP_HUP | SM_LOOP_ERR)))
            s->readable = true;
    }
    sm_vsock_stream_ready(s);
    all->pump(all->pump_arg);
}

bool sm_vsock_stream_establish(struct vsock_stream *s)
{
    s->readable = s->first_len > 0;
    return sm_loop_add(s->all->loop, s->fd, WATCH_IN, on_socket, s, &s->watch, NULL) == 0;
}

/* ---- all of them ----------------------------------------------------------------------------- */

void sm_vsock_streams_init(struct vsock_streams *all, struct sm_loop *loop, unsigned max,
    void (*pump)(void *arg), void *pump_arg)
{
    *all = (struct vsock_streams){.loop = loop, .max = max, .pump = pump, .pump_arg = pump_arg};
    all->ready_tail = &all->ready;
}

void sm_vsock_streams_fini(struct vsock_streams *all)
{
    while (all->list)
        sm_vsock_stream_free(all->list);
}
