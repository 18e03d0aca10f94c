/*
 * How a guest's TCP connections to its name server come to us. See dns_tcp.h.
 *
 * System calls: socket(AF_INET), bind, listen, accept4, getsockname, getpeername.
 */
#include "net/dns_tcp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/egress.h"
#include "util/bytes.h"
#include "util/clock.h"

#define TICK_MS   1000
#define MAX_FRAME (SM_ETH_HEADER + SM_IPV6_HEADER + 65535)
#define AT_WORK   3 /* no room is made of it */
#define BACKLOG   4 /* room for libslirp beside others that try their luck */

static const struct sm_ip loopback[2] = {
    {{[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}},
    {{[15] = 1}},
};

/* ---- slots --------------------------------------------------------------------------------- */

static void stop_listening(struct sm_dns_tcp_slot *slot)
{
    sm_loop_remove(sm_steal_ptr(&slot->watch));
    sm_close(slot->listener);
    slot->listener = -1;
}

static void empty(struct sm_dns_tcp_slot *slot)
{
    stop_listening(slot);
    sm_dns_stream_destroy(slot->stream);
    *slot = (struct sm_dns_tcp_slot){.tcp = slot->tcp, .fd = -1, .listener = -1};
}

static struct sm_dns_tcp_slot *find(struct sm_dns_tcp *t, bool v6, uint16_t guest_port)
{
    for (unsigned i = 0; i < SM_DNS_TCP_MAX; i++) {
        struct sm_dns_tcp_slot *slot = &t->slots[i];
        if (slot->port != 0 && slot->guest_port == guest_port && slot->v6 == v6)
            return slot;
    }
    return NULL;
}

/* The lower, the sooner it makes room: free, ended, idle. */
static unsigned worth(const struct sm_dns_tcp_slot *slot)
{
    if (slot->port == 0)
        return 0;
    if (slot->stream && !sm_dns_stream_is_open(slot->stream))
        return 1;
    return slot->stream && sm_dns_stream_is_idle(slot->stream) ? 2 : AT_WORK;
}

/* NULL: all are at work. */
static struct sm_dns_tcp_slot *make_room(struct sm_dns_tcp *t)
{
    struct sm_dns_tcp_slot *best = &t->slots[0];
    for (unsigned i = 1; i < SM_DNS_TCP_MAX; i++) {
        struct sm_dns_tcp_slot *slot = &t->slots[i];
        unsigned is = worth(slot), least = worth(best);
        if (is < least || (is == least && slot->used_ms < best->used_ms))
            best = slot;
    }
    if (worth(best) == AT_WORK || (best->fd >= 0 && !t->end(t->end_arg, best->fd)))
        return NULL;
    empty(best);
    return best;
}

/* ---- the way in ---------------------------------------------------------------------------- */

/* The other end is a socket that nobody else has. */
static bool is_libslirps(const struct sm_dns_tcp_slot *slot, int fd)
{
    struct sockaddr_storage theirs = {0}, peer = {0};
    socklen_t len = sizeof(theirs), peer_len = sizeof(peer);
    return getsockname(slot->fd, (struct sockaddr *)&theirs, &len) == 0 &&
           getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0 && len == peer_len &&
           memcmp(&theirs, &peer, len) == 0;
}

static void on_client(void *arg, uint32_t events)
{
    (void)events;
    struct sm_dns_tcp_slot *slot = arg;
    struct sm_dns_tcp *t = slot->tcp;
    auto_fd fd = accept4(slot->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        stop_listening(slot); /* which resets who waits */
    if (fd < 0 || !is_libslirps(slot, fd))
        return;
    stop_listening(slot);
    if (++t->last_id == 0)
        t->last_id = 1;
    slot->stream = sm_dns_stream_create(t->loop, t->proxy, fd, t->last_id);
    fd = -1;
    if (!t->ticking) /* else each new one would put off the end of the others */
        sm_loop_timer_arm(t->timer, TICK_MS);
    t->ticking = true;
}

static int listen_on_loopback(bool v6, uint16_t *port)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)&address;
    socklen_t len = v6 ? sizeof(*in6) : sizeof(*v4);
    if (v6)
        *in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    else
        *v4 = (struct sockaddr_in){
            .sin_family = AF_INET, .sin_addr.s_addr = htobe32(INADDR_LOOPBACK)};
    auto_fd fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        return -1;
    *port = be16toh(v6 ? in6->sin6_port : v4->sin_port);
    int owned = fd;
    fd = -1;
    return owned;
}

/* NULL: refused. */
static struct sm_dns_tcp_slot *open_slot(struct sm_dns_tcp *t, const struct sm_frame *syn)
{
    if (!t->frame)
        t->frame = malloc(MAX_FRAME);
    struct sm_dns_tcp_slot *slot = t->frame ? make_room(t) : NULL;
    if (!slot)
        return NULL;
    slot->listener = listen_on_loopback(syn->v6, &slot->port);
    if (slot->listener < 0 ||
        sm_loop_add(t->loop, slot->listener, SM_LOOP_IN, on_client, slot, &slot->watch, NULL)) {
        empty(slot);
        return NULL;
    }
    slot->v6 = syn->v6;
    slot->guest_port = syn->sport;
    return slot;
}

bool sm_dns_tcp_aim(struct sm_dns_tcp *t, uint8_t *frame, struct sm_frame *f)
{
    struct sm_dns_tcp_slot *slot = find(t, f->v6, f->sport);
    if (f->tcp_flags & SM_TCP_SYN) {
        uint32_t seq = sm_frame_tcp_number(frame, f, SM_TCP_SEQ_AT);
        /* The guest has forgotten the one before. */
        if (slot && slot->syn != seq && t->end(t->end_arg, slot->fd))
            slot = NULL;
        if (!slot)
            slot = open_slot(t, f);
        if (slot && slot->fd < 0)
            slot->syn = seq;
    }
    if (!slot)
        return false;
    slot->used_ms = sm_now_ms();
    sm_frame_readdress(frame, f, SM_FRAME_RECEIVER, &loopback[f->v6], slot->port);
    return true;
}

void sm_dns_tcp_opened(struct sm_dns_tcp *t, int fd, const struct sm_frame *f)
{
    struct sm_dns_tcp_slot *slot = find(t, f->v6, f->sport);
    if (slot && f->protocol == SM_IP_TCP && f->dport == slot->port &&
        sm_ip_equal(&f->dst, &loopback[f->v6]))
        slot->fd = fd;
}

void sm_dns_tcp_passed(struct sm_dns_tcp *t, const struct sm_frame *f)
{
    struct sm_dns_tcp_slot *slot = find(t, f->v6, f->sport);
    if (slot && slot->fd < 0)
        empty(slot);
}

void sm_dns_tcp_closed(struct sm_dns_tcp *t, int fd)
{
    for (unsigned i = 0; i < SM_DNS_TCP_MAX; i++)
        if (fd >= 0 && t->slots[i].fd == fd)
            empty(&t->slots[i]);
}

/* ---- the way out --------------------------------------------------------------------------- */

const void *sm_dns_tcp_unaim(struct sm_dns_tcp *t, const void *frame, size_t len)
{
    struct sm_frame f;
    if (!t->frame || len > MAX_FRAME)
        return frame;
    sm_frame_parse(frame, len, &f);
    if (f.kind != SM_FRAME_IP || f.protocol != SM_IP_TCP || !sm_ip_equal(&f.src, &loopback[f.v6]))
        return frame;
    memcpy(t->frame, frame, len);
    sm_frame_readdress(
        t->frame, &f, SM_FRAME_SENDER, &(f.v6 ? &sm_subnet_v6 : &sm_subnet_v4)->dns, 53);
    return t->frame;
}

void sm_dns_tcp_answer(
    struct sm_dns_tcp *t, const struct sm_dns_client *client, const uint8_t *msg, size_t len)
{
    for (unsigned i = 0; i < SM_DNS_TCP_MAX; i++) {
        struct sm_dns_stream *stream = t->slots[i].stream;
        if (stream && sm_dns_stream_id(stream) == client->stream)
            sm_dns_stream_answer(stream, msg, len);
    }
}

/* ---- life ---------------------------------------------------------------------------------- */

static void on_tick(void *arg)
{
    struct sm_dns_tcp *t = arg;
    bool open = false;
    for (unsigned i = 0; i < SM_DNS_TCP_MAX; i++) {
        struct sm_dns_stream *stream = t->slots[i].stream;
        if (!stream)
            continue;
        sm_dns_stream_expire(stream, sm_now_ms());
        open = open || sm_dns_stream_is_open(stream);
    }
    t->ticking = open;
    if (open)
        sm_loop_timer_arm(t->timer, TICK_MS);
}

int sm_dns_tcp_init(struct sm_dns_tcp *t, struct sm_loop *loop, struct sm_dns_proxy *proxy,
    bool (*end)(void *arg, int fd), void *end_arg, sm_error *err)
{
    *t = (struct sm_dns_tcp){.loop = loop, .proxy = proxy, .end = end, .end_arg = end_arg};
    for (unsigned i = 0; i < SM_DNS_TCP_MAX; i++)
        t->slots[i] = (struct sm_dns_tcp_slot){.tcp = t, .fd = -1, .listener = -1};
    return sm_loop_timer_create(loop, on_tick, t, &t->timer, err);
}

void sm_dns_tcp_clear(struct sm_dns_tcp *t)
{
    for (unsigned i = 0; i < SM_DNS_TCP_MAX; i++)
        empty(&t->slots[i]);
    sm_loop_timer_disarm(t->timer);
    t->ticking = false;
}

void sm_dns_tcp_fini(struct sm_dns_tcp *t)
{
    sm_dns_tcp_clear(t);
    sm_loop_timer_destroy(t->timer);
    free(t->frame);
}
