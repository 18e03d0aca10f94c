/*
 * The port proxy: connections of the host to ports of the guest (wire.h, "Ports"): on its loopback
 * for the VM's owner, and at the card's address; for others there alone.
 *
 * A link has two ends, the host's stream and the socket of the guest. What one end brings is handed
 * to the other at once, through one buffer that all links share; only what the other does not take
 * stays in a buffer of the link's own, and nothing more is read from that end until it is gone.
 * Each direction ends by itself (half close).
 *
 * UDP: the socket is connected to the port, and the stream carries datagrams with their length in
 * front.
 */
#include "proxy.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host.h"
#include "loop.h"
#include "spawn.h"
#include "system.h"
#include "util/bytes.h"

#define LINKS_MAX 4096
#define FEW_LINKS 256 /* with these the ordinary limit of open files is enough */

enum end { HOST = 0, GUEST = 1 };

enum link_state {
    LINK_FREE = 0,
    LINK_FIRST,      /* the host has not said where to yet */
    LINK_CONNECTING, /* TCP: the guest's socket has not answered */
    LINK_OPEN,
};

struct side {
    struct source source;
    bool ended;         /* sends no more */
    struct buffer *out; /* what it has not taken yet */
};

struct link {
    enum link_state state;
    bool udp;
    bool say_ok;   /* the host waits for "OK PORT" */
    bool outside;  /* not the owner's */
    bool settled;  /* UDP: somebody is bound where it leads to */
    uint8_t place; /* the next one to try */
    uint16_t port;
    uint32_t generation;
    struct side side[2];
    struct buffer *frames; /* UDP: the beginning of a frame from the host */
};

/* Where somebody may listen, in this order: the owner is on the guest's loopback first. */
enum place { LOOPBACK4, LOOPBACK6, CARD4, CARD6, PLACES };

static struct link links[LINKS_MAX];

static uint8_t shared[2 + 65536];

static void close_link(struct link *l)
{
    /* Nobody listens there: told apart from a service that has nothing to say (stream.h). */
    if (l->state < LINK_OPEN)
        shutdown(l->side[HOST].source.fd, SHUT_RD);
    for (int i = 0; i < 2; i++) {
        buffer_put(l->side[i].out);
        l->side[i].out = NULL;
        if (l->side[i].source.fd >= 0)
            close(l->side[i].source.fd);
        l->side[i].source.fd = -1;
    }
    buffer_put(l->frames);
    l->frames = NULL;
    l->state = LINK_FREE;
}

static void link_ready(unsigned index, uint32_t generation, uint32_t events);

/* Asks the loop for what can be dealt with; false: not possible. */
static bool update(struct link *l, enum end end)
{
    struct side *s = &l->side[end], *other = &l->side[!end];
    uint32_t want = s->out ? LOOP_OUT : 0;
    if (end == GUEST && l->state == LINK_CONNECTING)
        want = LOOP_OUT;
    else if (!s->ended && !other->out && (end == GUEST || l->state != LINK_CONNECTING))
        want |= LOOP_IN;
    if (s->source.fd < 0)
        return true;
    /* An end that nothing is wanted of is watched for its loss, which is told once. */
    if (want == 0)
        want = LOOP_END_ONCE;
    return loop_ask(&s->source, want) == 0;
}

/* ---- passing on ---------------------------------------------------------------------------- */

/* Sends, and keeps what does not go. False: the end is lost. */
static bool give(struct side *to, const uint8_t *data, size_t len)
{
    ssize_t n = send(to->source.fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return false;
    if (n < 0)
        n = 0;
    if ((size_t)n == len)
        return true;
    to->out = buffer_get((uint32_t)len);
    if (!to->out)
        return false;
    memcpy(to->out->data, data + n, len - (size_t)n);
    to->out->len = (uint32_t)(len - (size_t)n);
    return true;
}

static bool begin_next(struct link *l);

/* Lost as datagrams are; but where nobody is bound the guest's own addresses tell so at once, and
 * the next place gets it. With none left the next datagram begins anew. */
static void give_datagram(struct link *l, const uint8_t *data, size_t len)
{
    for (;;) {
        int fd = l->side[GUEST].source.fd, e = 0;
        socklen_t size = sizeof(e);
        /* The refusal of an earlier datagram is told here, once, and this one did not go out. */
        if (send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == ECONNREFUSED) {
            l->settled = false;
            continue;
        }
        if (l->settled)
            return;
        l->settled = getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &size) != 0 || e != ECONNREFUSED;
        if (l->settled)
            return;
        if (!begin_next(l)) {
            l->place = 0;
            (void)begin_next(l);
            return;
        }
    }
}

/* The whole datagrams at the front of `from` go out; the rest is moved to the front. */
static void give_datagrams(struct link *l, struct buffer *from)
{
    while (from->len >= 2) {
        const uint8_t *p = from->data + from->start;
        uint32_t n = sm_load_le16(p);
        if (from->len - 2 < n)
            break;
        give_datagram(l, p + 2, n);
        from->start += 2 + n;
        from->len -= 2 + n;
    }
    memmove(from->data, from->data + from->start, from->len);
    from->start = 0;
}

/* From the host's stream to a UDP socket: frames may come in pieces. */
static bool pass_frames(struct link *l)
{
    struct buffer *b = l->frames ? l->frames : buffer_get(BUFFER_ROOM);
    if (!b)
        return false;
    ssize_t n = recv(l->side[HOST].source.fd, b->data + b->len, b->cap - b->len, MSG_DONTWAIT);
    bool alive = n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
    if (n > 0) {
        b->len += (uint32_t)n;
        give_datagrams(l, b);
    }
    l->frames = b->len > 0 ? b : NULL;
    if (!l->frames)
        buffer_put(b);
    return alive;
}

static bool pass_datagram(struct link *l)
{
    ssize_t n = recv(l->side[GUEST].source.fd, shared + 2, sizeof(shared) - 2, MSG_DONTWAIT);
    if (n < 0 && errno == ECONNREFUSED) { /* nobody listens now; somebody may later */
        l->settled = false;
        return true;
    }
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (l->side[HOST].out)
        return true; /* dropped: the host is slow */
    sm_store_le16(shared, (uint16_t)n);
    return give(&l->side[HOST], shared, (size_t)n + 2);
}

static bool pass_bytes(struct link *l, enum end from)
{
    struct side *s = &l->side[from], *to = &l->side[!from];
    if (to->out)
        return true;
    ssize_t n = recv(s->source.fd, shared, SM_WIRE_MAX_DATA, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n > 0)
        return give(to, shared, (size_t)n);
    s->ended = true;
    shutdown(to->source.fd, SHUT_WR);
    return !to->ended; /* both have: over */
}

/* What waited for this end to take it. */
static bool resume(struct link *l, enum end end)
{
    struct side *s = &l->side[end];
    struct buffer *b = s->out;
    if (!b)
        return true;
    ssize_t n = send(s->source.fd, b->data + b->start, b->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    b->start += (uint32_t)n;
    b->len -= (uint32_t)n;
    if (b->len == 0) {
        buffer_put(b);
        s->out = NULL;
    }
    return true;
}

/* ---- connecting ---------------------------------------------------------------------------- */

/* False: there is no such place. */
static bool destination(
    const struct link *l, enum place place, struct sockaddr_in *a4, struct sockaddr_in6 *a6)
{
    bool at_card = place >= CARD4, v6 = place == LOOPBACK6 || place == CARD6;
    const uint8_t *card = at_card ? system_card_address(v6) : NULL;
    if (at_card ? !card : l->outside)
        return false;
    *a4 = (struct sockaddr_in){.sin_family = AF_INET,
        .sin_port = htons(l->port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *a6 = (struct sockaddr_in6){
        .sin6_family = AF_INET6, .sin6_port = htons(l->port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    if (card && v6)
        memcpy(&a6->sin6_addr, card, 16);
    else if (card)
        memcpy(&a4->sin_addr, card, 4);
    return true;
}

static bool begin(struct link *l, enum place place)
{
    bool v6 = place == LOOPBACK6 || place == CARD6;
    struct side *s = &l->side[GUEST];
    if (s->source.fd >= 0)
        close(s->source.fd);
    s->source.fd = -1;
    struct sockaddr_in a4;
    struct sockaddr_in6 a6;
    if (!destination(l, place, &a4, &a6))
        return false;
    int type = (l->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
    int fd = socket(v6 ? AF_INET6 : AF_INET, type, 0);
    s->source = loop_source(fd, link_ready, (unsigned)(l - links) * 2 + GUEST, l->generation);
    if (s->source.fd < 0)
        return false;
    const int one = 1;
    if (!l->udp)
        (void)setsockopt(s->source.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    const struct sockaddr *to = v6 ? (const struct sockaddr *)&a6 : (const struct sockaddr *)&a4;
    socklen_t len = v6 ? sizeof(a6) : sizeof(a4);
    /* from there, too; the port is chosen with the connection, as one for all of them */
    if (l->outside) {
        if (!l->udp)
            (void)setsockopt(s->source.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
        a4.sin_port = a6.sin6_port = 0;
        if (bind(s->source.fd, to, len) != 0)
            return false;
        a4.sin_port = a6.sin6_port = htons(l->port);
    }
    int rc = connect(s->source.fd, to, len);
    l->state = rc == 0 ? LINK_OPEN : LINK_CONNECTING;
    return rc == 0 || errno == EINPROGRESS;
}

static bool begin_next(struct link *l)
{
    while (l->place < PLACES)
        if (begin(l, l->place++))
            return true;
    return false;
}

/* The connection stands. The first bytes to the host: they fit. */
static bool opened(struct link *l)
{
    char text[16] = "OK ";
    size_t at = 3;
    l->state = LINK_OPEN;
    if (!l->say_ok)
        return true;
    for (uint32_t unit = 10000; unit > 0; unit /= 10)
        if (unit <= l->port)
            text[at++] = (char)('0' + l->port / unit % 10);
    text[at++] = '\n';
    return send(l->side[HOST].source.fd, text, at, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)at;
}

/* On the guest's own addresses the answer mostly is there at once. */
static bool begin_any(struct link *l)
{
    return begin_next(l) && (l->state != LINK_OPEN || opened(l));
}

/* A service that does not answer is there: only where nobody listens the next place is tried. */
static bool connected(struct link *l)
{
    int e = 0;
    socklen_t len = sizeof(e);
    if (getsockopt(l->side[GUEST].source.fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0)
        e = errno;
    if (e == 0)
        return opened(l);
    return e != ETIMEDOUT && begin_any(l);
}

/* The host says all of it at once, right behind the connection. */
static bool read_first(struct link *l)
{
    uint8_t first[SM_WIRE_PROXY_FIRST];
    ssize_t n = recv(l->side[HOST].source.fd, first, sizeof(first), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n != (ssize_t)sizeof(first))
        return false;
    l->port = sm_load_le16(first);
    uint16_t protocol = sm_load_le16(first + 2);
    l->outside = protocol & SM_WIRE_PROXY_OUTSIDE;
    protocol &= (uint16_t)~SM_WIRE_PROXY_OUTSIDE;
    l->udp = protocol == SM_WIRE_PROXY_UDP;
    l->say_ok = protocol == (SM_WIRE_PROXY_TCP | SM_WIRE_PROXY_SAY_OK);
    return (l->udp || l->say_ok || protocol == SM_WIRE_PROXY_TCP) && l->port != 0 && begin_any(l);
}

/* ---- the loop's side ----------------------------------------------------------------------- */

static bool readable(struct link *l, enum end end, uint32_t events)
{
    if (l->state == LINK_CONNECTING)
        return false; /* the host's end went away meanwhile */
    if (l->side[end].ended)
        return !(events & (LOOP_END | LOOP_ERROR)); /* nor does it listen any more */
    if (!l->udp)
        return pass_bytes(l, end);
    return end == HOST ? pass_frames(l) : pass_datagram(l);
}

static void update_both(struct link *l)
{
    if (!update(l, HOST) || !update(l, GUEST))
        close_link(l);
}

static void link_ready(unsigned index, uint32_t generation, uint32_t events)
{
    struct link *l = &links[index / 2];
    if (l->state == LINK_FREE || l->generation != generation)
        return;
    enum end end = index % 2 ? GUEST : HOST;
    bool alive = true;
    if (l->state == LINK_FIRST) {
        alive = read_first(l);
    } else if (l->state == LINK_CONNECTING && end == GUEST) {
        alive = connected(l);
    } else {
        if (events & LOOP_OUT)
            alive = resume(l, end);
        if (alive && (events & (LOOP_IN | LOOP_END | LOOP_ERROR)))
            alive = readable(l, end, events);
    }
    if (alive)
        update_both(l);
    else
        close_link(l);
}

void proxy_serve(int fd)
{
    for (unsigned i = 0; i < LINKS_MAX; i++) {
        struct link *l = &links[i];
        if (l->state != LINK_FREE)
            continue;
        if (i == FEW_LINKS)
            spawn_raise_files();
        uint32_t generation = l->generation + 1;
        *l = (struct link){
            .state = LINK_FIRST,
            .generation = generation,
            .side = {{.source = loop_source(fd, link_ready, 2 * i + HOST, generation)},
                {.source.fd = -1}},
        };
        if (read_first(l))
            update_both(l);
        else
            close_link(l);
        return;
    }
    close(fd);
}

static struct source listener;

static void listener_ready(unsigned index, uint32_t generation, uint32_t events)
{
    int fd = host_accept(listener.fd);
    if (fd < 0 && errno == EMFILE)
        spawn_raise_files(); /* the listener is readable still */
    if (fd >= 0)
        proxy_serve(fd);
}

int proxy_listen(int fd)
{
    listener = loop_source(fd, listener_ready, 0, 0);
    return loop_ask(&listener, LOOP_IN);
}
