/* What libslirp keeps for a guest. See sockets.h. */
#include "net/sockets.h"

#include <stdlib.h>
#include <string.h>

#include "net/egress.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define ECHOES 256 /* echo requests without an answer: libslirp keeps each for four minutes */
/* For so long it was not used what must make room for a new connection. */
#define HALF_CLOSED_IDLE_MS 2000
#define OPEN_IDLE_MS        30000

/* What is known of a descriptor of libslirp. */
struct sm_known_fd {
    struct sm_flow *flow; /* of a TCP socket */
    uint8_t protocol;     /* 0: no socket of libslirp's */
    bool v6;
    uint16_t port; /* of the guest */
};

static void count(atomic_ullong *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- what is open -------------------------------------------------------------------------- */

/* NULL: out of memory. */
static struct sm_known_fd *make_known_fd(struct sm_sockets *s, int fd)
{
    if ((size_t)fd < s->n_fds)
        return &s->fds[fd];
    size_t n = ((size_t)fd + 64) & ~(size_t)63;
    struct sm_known_fd *grown = reallocarray(s->fds, n, sizeof(*grown));
    if (!grown)
        return NULL;
    memset(grown + s->n_fds, 0, (n - s->n_fds) * sizeof(*grown));
    s->fds = grown;
    s->n_fds = n;
    return &s->fds[fd];
}

static void mark_udp_port(struct sm_sockets *s, const struct sm_known_fd *known, bool used)
{
    uint8_t *byte = &s->udp_ports[known->v6][known->port / 8];
    uint8_t bit = (uint8_t)(1u << (known->port % 8));
    *byte = used ? *byte | bit : *byte & (uint8_t)~bit;
}

bool sm_sockets_opened(struct sm_sockets *s, int fd, const uint8_t *frame, const struct sm_frame *f)
{
    struct sm_known_fd *known = fd >= 0 && f ? make_known_fd(s, fd) : NULL;
    if (!known || (f->protocol == SM_IP_TCP && !s->spare))
        return false;
    known->protocol = f->protocol;
    known->v6 = f->v6;
    known->port = f->sport;
    atomic_fetch_add_explicit(s->n, 1, memory_order_relaxed);
    switch (f->protocol) {
    case SM_IP_TCP:
        known->flow = sm_steal_ptr(&s->spare);
        sm_flows_insert(&s->flows, known->flow, frame, f, sm_now_ms());
        break;
    case SM_IP_UDP:
        s->n_udp++;
        mark_udp_port(s, known, true);
        break;
    default:
        s->n_echoes++;
        break;
    }
    return true;
}

void sm_sockets_closed(struct sm_sockets *s, int fd)
{
    struct sm_known_fd *known = fd >= 0 && (size_t)fd < s->n_fds ? &s->fds[fd] : NULL;
    if (!known)
        return;
    switch (known->protocol) {
    case 0:
        return;
    case SM_IP_TCP:
        sm_flows_remove(&s->flows, known->flow);
        break;
    case SM_IP_UDP:
        s->n_udp--;
        mark_udp_port(s, known, false);
        break;
    default:
        s->n_echoes--;
        break;
    }
    *known = (struct sm_known_fd){.flow = NULL};
    atomic_fetch_sub_explicit(s->n, 1, memory_order_relaxed);
}

bool sm_sockets_end(struct sm_sockets *s, int fd)
{
    const struct sm_flow *flow = fd >= 0 && (size_t)fd < s->n_fds ? s->fds[fd].flow : NULL;
    if (!flow || !flow->answered)
        return false;
    s->end(s->end_arg, flow, true);
    return true;
}

void sm_sockets_clear(struct sm_sockets *s)
{
    for (size_t fd = 0; fd < s->n_fds; fd++)
        sm_sockets_closed(s, (int)fd); /* nothing, as long as libslirp has told of each */
}

void sm_sockets_fini(struct sm_sockets *s)
{
    sm_sockets_clear(s);
    free(s->fds);
    free(s->spare);
}

void sm_sockets_sent(struct sm_sockets *s, const uint8_t *frame, size_t len)
{
    struct sm_frame f;
    sm_frame_parse(frame, len, &f);
    struct sm_flow *flow =
        f.kind == SM_FRAME_IP && f.protocol == SM_IP_TCP ? sm_flows_find_to(&s->flows, &f) : NULL;
    if (flow)
        sm_flows_sent(&s->flows, flow, frame, &f, sm_now_ms());
}

/* ---- what may be opened -------------------------------------------------------------------- */

static unsigned n_open(const struct sm_sockets *s)
{
    return atomic_load_explicit(s->n, memory_order_relaxed);
}

/* There are as many sockets as may be: the connection that was idle longest makes room. */
static bool make_room(struct sm_sockets *s)
{
    int64_t now = sm_now_ms();
    struct sm_flow *flow = sm_flows_oldest(&s->flows.closing, now - HALF_CLOSED_IDLE_MS);
    if (!flow)
        flow = sm_flows_oldest(&s->flows.open, now - OPEN_IDLE_MS);
    if (!flow)
        return false;
    s->end(s->end_arg, flow, true);
    return n_open(s) < s->max;
}

/* May this frame, which may make a new socket, go on? A quarter of them is for TCP alone. */
static bool may_open(struct sm_sockets *s, const struct sm_frame *f)
{
    unsigned others = s->max - s->max / 4;
    const struct sm_subnet *subnet = f->v6 ? &sm_subnet_v6 : &sm_subnet_v4;
    switch (f->protocol) {
    case SM_IP_TCP:
        if (s->flows.connecting >= SM_FLOWS_CONNECTING)
            return false;
        break;
    case SM_IP_UDP:
        if (s->udp_ports[f->v6][f->sport / 8] >> (f->sport % 8) & 1)
            return true;
        if (s->n_udp + s->n_echoes >= others)
            return false;
        break;
    default:
        if (f->v6 || sm_ip_in_prefix(&f->dst, &subnet->net, subnet->prefix))
            return true; /* answered by libslirp itself, or not at all */
        if (s->n_echoes >= ECHOES || s->n_udp + s->n_echoes >= others)
            return false;
        break;
    }
    unsigned open = n_open(s);
    return open < s->max || make_room(s);
}

/* A SYN. Data in it would be kept while libslirp connects; nobody has told a guest that it may send
 * some. */
static bool may_connect(struct sm_sockets *s, const uint8_t *frame, const struct sm_frame *f)
{
    if (f->payload < f->end)
        return false;
    struct sm_flow *flow = sm_flows_find_from(&s->flows, f);
    if (flow && sm_flows_is_repeated(flow, frame, f))
        /* libslirp repeats its answer by itself, and must not read the options again */
        return false;
    if (flow)
        s->end(s->end_arg, flow, false); /* the guest has forgotten it */
    if (!s->spare)
        s->spare = malloc(sizeof(*s->spare));
    return s->spare && may_open(s, f);
}

bool sm_sockets_admit(struct sm_sockets *s, const uint8_t *frame, const struct sm_frame *f)
{
    if (f->protocol == SM_IP_TCP && !(f->tcp_flags & SM_TCP_SYN)) {
        struct sm_flow *flow = sm_flows_find_from(&s->flows, f);
        if (!flow || sm_flows_admit(&s->flows, flow, frame, f, sm_now_ms()))
            return true;
        count(s->segment_limit);
        return false;
    }
    bool open = f->protocol == SM_IP_TCP ? may_connect(s, frame, f) : may_open(s, f);
    if (!open)
        count(s->socket_limit);
    return open;
}
