/*
 * Published UDP ports. A session is one sender of datagrams and one stream to the guest's proxy, on
 * which each datagram has its length in front. Towards the guest a datagram that the stream cannot
 * take whole is dropped; a frame is never cut, since a socketpair takes what fits and the rest is
 * kept until it does.
 */
#include "net/ports/udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "wire/wire.h"

#define BATCH      64
#define FRAME_ROOM (2 + 65536)

struct udp_session {
    struct port *port;
    struct udp_session *next;
    struct sockaddr_storage peer;
    socklen_t peer_len;
    int fd;
    struct sm_loop_watch *watch;
    int64_t used_ms;
    bool stranger;
    uint8_t *out; /* the end of a frame that the stream did not take yet, or NULL */
    size_t out_start, out_len;
    uint8_t *in; /* the beginning of a frame from the guest, or NULL */
    size_t in_len;
};

static void close_session(struct port *port, struct udp_session *s)
{
    struct udp_session **link = &port->sessions;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    port->n_sessions--;
    port->n_strangers -= s->stranger;
    sm_loop_remove(s->watch);
    sm_close(s->fd);
    free(s->out);
    free(s->in);
    free(s);
}

void sm_ports_udp_expire(struct port *port, bool all)
{
    int64_t now = sm_now_ms();
    struct udp_session *next;
    for (struct udp_session *s = port->sessions; s; s = next) {
        next = s->next;
        if (all || now - s->used_ms > SM_PORTS_IDLE_MS)
            close_session(port, s);
    }
}

/* ---- from the guest ------------------------------------------------------------------------ */

/* Sends the whole frames at in; what is left of one moves to the front. False: nonsense. */
static bool send_frames(struct udp_session *s)
{
    size_t at = 0;
    while (s->in_len - at >= 2) {
        size_t len = sm_load_le16(s->in + at);
        if (s->in_len - at - 2 < len)
            break;
        /* What the network does not take is lost, as datagrams are. */
        (void)!sendto(s->port->fd, s->in + at + 2, len, MSG_DONTWAIT | MSG_NOSIGNAL,
            (const struct sockaddr *)&s->peer, s->peer_len);
        at += 2 + len;
    }
    memmove(s->in, s->in + at, s->in_len - at);
    s->in_len -= at;
    return s->in_len < FRAME_ROOM;
}

static bool read_stream(struct udp_session *s)
{
    if (!s->in)
        s->in = malloc(FRAME_ROOM);
    if (!s->in)
        return false;
    ssize_t n = recv(s->fd, s->in + s->in_len, FRAME_ROOM - s->in_len, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    s->in_len += (size_t)n;
    s->used_ms = sm_now_ms();
    return send_frames(s);
}

static bool flush_out(struct udp_session *s)
{
    ssize_t n = send(s->fd, s->out + s->out_start, s->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    s->out_start += (size_t)n;
    s->out_len -= (size_t)n;
    if (s->out_len == 0) {
        free(s->out);
        s->out = NULL;
        s->out_start = 0;
        sm_loop_modify(s->watch, SM_LOOP_IN);
    }
    return true;
}

static void on_stream(void *arg, uint32_t events)
{
    struct udp_session *s = arg;
    bool alive = true;
    if ((events & SM_LOOP_OUT) && s->out)
        alive = flush_out(s);
    if (alive && (events & (SM_LOOP_IN | SM_LOOP_HUP | SM_LOOP_ERR)))
        alive = read_stream(s);
    if (!alive)
        close_session(s->port, s);
}

/* ---- to the guest -------------------------------------------------------------------------- */

static bool same_peer(
    const struct udp_session *s, const struct sockaddr_storage *peer, socklen_t len)
{
    return s->peer_len == len && memcmp(&s->peer, peer, len) == 0;
}

/* The session of this sender, in front of the others. */
static struct udp_session *find(
    struct port *port, const struct sockaddr_storage *peer, socklen_t len)
{
    for (struct udp_session **link = &port->sessions; *link; link = &(*link)->next) {
        struct udp_session *s = *link;
        if (same_peer(s, peer, len)) {
            *link = s->next;
            s->next = port->sessions;
            port->sessions = s;
            return s;
        }
    }
    return NULL;
}

static struct udp_session *open_session(
    struct port *port, const struct sockaddr_storage *peer, socklen_t len, bool stranger)
{
    if (!sm_ports_is_ready(port->ports) || port->n_sessions == SM_PORTS_SESSIONS ||
        (stranger && port->n_strangers == SM_PORTS_SESSIONS / 4 * 3))
        return NULL;
    struct udp_session *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
        free(s);
        return NULL;
    }
    *s = (struct udp_session){.port = port,
        .fd = pair[0],
        .peer = *peer,
        .peer_len = len,
        .stranger = stranger,
        .next = port->sessions};
    struct sm_vsock_target target = sm_ports_target(
        port->spec.guest_port, SM_WIRE_PROXY_UDP | (stranger ? SM_WIRE_PROXY_OUTSIDE : 0));
    struct sm_ports *ports = port->ports;
    if (!sm_ports_bridge(ports, pair[1], &target) ||
        sm_loop_add(ports->loop, s->fd, SM_LOOP_IN, on_stream, s, &s->watch, NULL)) {
        sm_close(s->fd);
        free(s);
        return NULL;
    }
    port->sessions = s;
    port->n_sessions++;
    port->n_strangers += stranger;
    ports->counters.sessions++;
    sm_ports_log(ports, peer, port->spec.guest_port, port->spec.protocol);
    sm_ports_tick_later(ports);
    return s;
}

/* False: dropped. */
static bool pass_on(struct udp_session *s, const uint8_t *frame, size_t len)
{
    s->used_ms = sm_now_ms();
    if (s->out)
        return false;
    ssize_t n = send(s->fd, frame, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0)
        return false;
    if ((size_t)n < len) {
        s->out_len = len - (size_t)n;
        s->out = malloc(s->out_len);
        if (!s->out) { /* half a frame would garble all that follow */
            close_session(s->port, s);
            return false;
        }
        memcpy(s->out, frame + n, s->out_len);
        sm_loop_modify(s->watch, SM_LOOP_IN | SM_LOOP_OUT);
    }
    return true;
}

/* Where datagrams of the host's loopback arrive, if the port is on all addresses. */
static struct sockaddr_storage local_end(
    const struct port *port, const struct sockaddr_storage *peer)
{
    struct sm_port_spec spec = port->spec;
    static const struct sm_ip any6 = {{0}}, loopback6 = {{[15] = 1}};
    struct sm_ip any4 = sm_ip_from_v4(0);
    if (peer->ss_family == AF_INET && sm_ip_equal(&spec.ip, &any4))
        spec.ip = sm_ip_from_v4(0x7f000001);
    else if (sm_ip_equal(&spec.ip, &any6))
        spec.ip = loopback6;
    struct sockaddr_storage local;
    sm_ports_sockaddr(&spec, &local);
    return local;
}

/* The session of this sender, who is told anew with each datagram: a port can change hands. */
static struct udp_session *session_of(
    struct port *port, const struct sockaddr_storage *peer, socklen_t len)
{
    struct sockaddr_storage local = local_end(port, peer);
    bool stranger = !sm_peer_owner_is_us(&port->ports->owner, SM_WIRE_PROXY_UDP, peer, &local);
    if (!sm_ports_may_enter(port->ports, port, stranger))
        return NULL;
    struct udp_session *s = find(port, peer, len);
    if (s && s->stranger != stranger) {
        close_session(port, s);
        s = NULL;
    }
    return s ? s : open_session(port, peer, len, stranger);
}

void sm_ports_udp_event(void *arg, uint32_t events)
{
    (void)events;
    struct port *port = arg;
    struct sm_ports *ports = port->ports;
    for (int i = 0; i < BATCH; i++) {
        struct sockaddr_storage peer = {0};
        socklen_t len = sizeof(peer);
        ssize_t n = recvfrom(port->fd, ports->datagram + 2, sizeof(ports->datagram) - 2,
            MSG_DONTWAIT, (struct sockaddr *)&peer, &len);
        if (n < 0)
            return;
        struct udp_session *s = session_of(port, &peer, len);
        sm_store_le16(ports->datagram, (uint16_t)n);
        if (!s || !pass_on(s, ports->datagram, 2 + (size_t)n))
            ports->counters.datagrams_dropped++;
    }
}
