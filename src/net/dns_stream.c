/*
 * A connection on which somebody asks our name server. See dns_stream.h.
 *
 * System calls: setsockopt, sendto, recvfrom.
 */
#include "net/dns_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "util/bytes.h"
#include "util/clock.h"

struct sm_dns_stream {
    struct sm_dns_proxy *proxy;
    struct sm_loop_watch *watch;
    uint32_t id;
    int fd; /* -1: it has ended */
    bool asking;
    bool pumping; /* an answer that comes now is taken up further down the stack */
    int64_t used_ms;
    size_t got; /* bytes of in */
    uint8_t in[SM_DNS_LENGTH + SM_DNS_MAX_UDP];
    uint8_t *out; /* the answer that goes out, or NULL */
    size_t out_len, out_sent;
};

static void end(struct sm_dns_stream *s)
{
    sm_loop_remove(sm_steal_ptr(&s->watch));
    sm_close(s->fd);
    s->fd = -1;
    free(sm_steal_ptr(&s->out));
    if (s->asking)
        sm_dns_proxy_forget(s->proxy, s->id);
    s->asking = false;
}

/* Without a TIME_WAIT, which would keep a port of the host's for a minute each time that somebody
 * talks nonsense. */
static void reset(struct sm_dns_stream *s)
{
    const struct linger none = {.l_onoff = 1};
    (void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    end(s);
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EINTR;
}

/* True: nothing is left to send. */
static bool flush(struct sm_dns_stream *s)
{
    while (s->out && s->out_sent < s->out_len) {
        ssize_t n = send(
            s->fd, s->out + s->out_sent, s->out_len - s->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && !would_block())
            end(s);
        if (n < 0)
            return false;
        s->out_sent += (size_t)n;
        s->used_ms = sm_now_ms();
    }
    free(sm_steal_ptr(&s->out));
    return true;
}

/* Asks what has come whole. True: there may be more to do. */
static bool ask(struct sm_dns_stream *s)
{
    size_t len = s->got < SM_DNS_LENGTH ? 0 : sm_load_be16(s->in);
    if (s->got >= SM_DNS_LENGTH && s->got - SM_DNS_LENGTH >= len) {
        struct sm_dns_client client = {.stream = s->id};
        s->asking = true;
        if (!sm_dns_proxy_ask(s->proxy, &client, s->in + SM_DNS_LENGTH, len)) {
            reset(s);
            return false;
        }
        s->got -= SM_DNS_LENGTH + len;
        memmove(s->in, s->in + SM_DNS_LENGTH + len, s->got);
        return true;
    }
    if (len > SM_DNS_MAX_UDP) {
        reset(s);
        return false;
    }
    ssize_t n = recv(s->fd, s->in + s->got, sizeof(s->in) - s->got, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && !would_block()))
        end(s);
    if (n <= 0)
        return false;
    s->got += (size_t)n;
    s->used_ms = sm_now_ms();
    return true;
}

/* Not by recursion: a guest may have put two hundred questions into what was read at once. */
static void pump(struct sm_dns_stream *s)
{
    s->pumping = true;
    while (s->fd >= 0 && flush(s) && !s->asking && ask(s))
        ;
    s->pumping = false;
    if (s->fd >= 0)
        sm_loop_modify(s->watch, s->out ? SM_LOOP_OUT : s->asking ? 0 : SM_LOOP_IN);
}

static void on_event(void *arg, uint32_t events)
{
    struct sm_dns_stream *s = arg;
    if (events & (SM_LOOP_ERR | SM_LOOP_HUP)) /* nobody is there any more to read an answer */
        end(s);
    else
        pump(s);
}

void sm_dns_stream_answer(struct sm_dns_stream *s, const uint8_t *msg, size_t len)
{
    s->asking = false;
    s->out = malloc(SM_DNS_LENGTH + len);
    if (!s->out) {
        end(s);
        return;
    }
    sm_store_be16(s->out, len);
    memcpy(s->out + SM_DNS_LENGTH, msg, len);
    s->out_len = SM_DNS_LENGTH + len;
    s->out_sent = 0;
    s->used_ms = sm_now_ms();
    if (!s->pumping)
        pump(s);
}

void sm_dns_stream_expire(struct sm_dns_stream *s, int64_t now_ms)
{
    if (s->fd >= 0 && !s->asking && now_ms - s->used_ms >= SM_DNS_STREAM_IDLE_MS)
        end(s);
}

uint32_t sm_dns_stream_id(const struct sm_dns_stream *s)
{
    return s->id;
}

bool sm_dns_stream_is_open(const struct sm_dns_stream *s)
{
    return s->fd >= 0;
}

bool sm_dns_stream_is_idle(const struct sm_dns_stream *s)
{
    return !s->asking;
}

struct sm_dns_stream *sm_dns_stream_create(
    struct sm_loop *loop, struct sm_dns_proxy *proxy, int fd, uint32_t id)
{
    struct sm_dns_stream *s = calloc(1, sizeof(*s));
    if (!s) {
        sm_close(fd);
        return NULL;
    }
    s->proxy = proxy;
    s->id = id;
    s->fd = fd;
    s->used_ms = sm_now_ms();
    if (sm_loop_add(loop, fd, SM_LOOP_IN, on_event, s, &s->watch, NULL))
        end(s);
    return s;
}

void sm_dns_stream_destroy(struct sm_dns_stream *s)
{
    if (!s)
        return;
    end(s);
    free(s);
}
