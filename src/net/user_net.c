/* The user-mode network. See user_net.h. */
#include "net/user_net.h"

#include <stdlib.h>
#include <string.h>

#include "net/dns_proxy.h"
#include "net/flows.h"
#include "net/reassembly.h"
#include "net/slirp_api.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"

#define HOSTNAME "supermachine"
#define IDLE_MS  1000
#define STALE_MS 50
/* What the guest is told to send at most in a TCP segment, with the headers: libslirp rounds its two buffers of 128
 * KiB for each connection up to multiples of that, which here adds 80 bytes (IPv4) or none. With the MTU it would
 * be 64 KiB each. */
#define MRU    (32768 + SM_IPV6_HEADER + 20)
#define ECHOES 256 /* echo requests without an answer: libslirp keeps each for four minutes */
/* For so long it was not used what must make room for a new connection. */
#define HALF_CLOSED_IDLE_MS 2000
#define OPEN_IDLE_MS        30000

/* One descriptor of libslirp. Its own allocation: the loop keeps the address. */
struct slot {
    struct user_net *un;
    struct sm_loop_watch *watch;
    int fd;
    uint32_t interest; /* SM_LOOP_* */
    uint32_t happened; /* since the last pump */
    uint64_t round;    /* the last fill that wanted it */
    struct slot *next, **link;
};

/* What is known of a descriptor of libslirp. */
struct known_fd {
    struct slot *slot;    /* while it is polled */
    struct sm_flow *flow; /* of a TCP socket */
    uint8_t protocol;     /* 0: no socket of libslirp's */
    bool v6;
    uint16_t port; /* of the guest */
};

/* A frame that waits for receive buffers. */
struct waiting {
    struct waiting *next;
    struct virtio_net_hdr_v1 hdr;
    size_t len;
    uint8_t frame[];
};

struct user_net {
    struct sm_net_backend base;
    struct sm_loop *loop;
    struct sm_egress egress;
    struct sm_dns_proxy *dns;
    struct sm_slirp_api api;
    Slirp *slirp;
    bool broken; /* libslirp could not be loaded: said once */
    void (*trouble)(void *arg, const char *message);
    void *trouble_arg;
    unsigned max_sockets;
    struct sm_user_net_counters counters;

    struct sm_loop_timer *pump_timer;
    bool pump_soon;
    int64_t pumped_ms;
    uint64_t round;
    struct slot *active;
    struct known_fd *fds; /* by descriptor */
    size_t n_fds;

    const uint8_t *input; /* the frame that libslirp is looking at, */
    const struct sm_frame *parsed;
    struct sm_flows flows;
    struct sm_flow *spare;           /* for the connection that it may open */
    unsigned n_udp, n_echoes;        /* sockets */
    bool untracked;                  /* there was no memory to keep track of one */
    uint8_t udp_ports[2][65536 / 8]; /* source ports (v4, v6) that have one */
    struct sm_reassembly fragments;

    bool guest_csum;
    uint8_t guest_mac[6]; /* of the last frame */
    uint8_t known_mac[6]; /* that libslirp knows, if ... */
    bool introduced;      /* ... it knows one */
    struct waiting *backlog, **backlog_end;
    size_t backlog_bytes;
    uint8_t answer[SM_ETH_HEADER + 48 + SM_DNS_MAX_UDP];
};

const uint8_t sm_user_net_mac[6] = {0x02, 0x73, 0x6d, 0x00, 0x00, 0x01};
/* What libslirp makes of the gateway's address; our own frames come from there too. */
static const uint8_t gateway_mac[6] = {0x52, 0x55, 10, 0, 2, 2};

static struct user_net *user_net_of(struct sm_net_backend *backend)
{
    return (struct user_net *)(void *)backend;
}

static void count(atomic_ullong *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- to the guest -------------------------------------------------------------------------- */

static void to_guest(struct user_net *un, const void *frame, size_t len)
{
    struct virtio_net_hdr_v1 hdr = {
        .flags = un->guest_csum ? VIRTIO_NET_HDR_F_DATA_VALID : 0,
        .gso_type = VIRTIO_NET_HDR_GSO_NONE,
    };
    struct waiting *w;

    if (!un->backlog && sm_virtio_net_deliver(un->base.dev, &hdr, frame, len))
        return;
    w = un->backlog_bytes + len <= SM_USER_NET_BACKLOG ? malloc(sizeof(*w) + len) : NULL;
    if (!w) {
        count(&un->counters.backlog_limit);
        return;
    }
    w->next = NULL;
    w->hdr = hdr;
    w->len = len;
    memcpy(w->frame, frame, len);
    *un->backlog_end = w;
    un->backlog_end = &w->next;
    un->backlog_bytes += len + sizeof(*w);
}

static void drop_first(struct user_net *un)
{
    struct waiting *w = un->backlog;

    un->backlog = w->next;
    if (!un->backlog)
        un->backlog_end = &un->backlog;
    un->backlog_bytes -= w->len + sizeof(*w);
    free(w);
}

static void user_rx_ready(struct sm_net_backend *backend)
{
    struct user_net *un = user_net_of(backend);

    while (un->backlog && sm_virtio_net_deliver(backend->dev, &un->backlog->hdr, un->backlog->frame,
                              un->backlog->len))
        drop_first(un);
    sm_virtio_net_flush(backend->dev);
}

/* ---- libslirp's descriptors ---------------------------------------------------------------- */

static void pump_soon(struct user_net *un)
{
    if (un->pump_soon)
        return;
    un->pump_soon = true;
    sm_loop_timer_arm(un->pump_timer, 0);
}

static void on_event(void *arg, uint32_t events)
{
    struct slot *slot = arg;

    slot->happened |= events;
    pump_soon(slot->un);
}

static void drop_slot(struct slot *slot)
{
    sm_loop_remove(slot->watch);
    slot->un->fds[slot->fd].slot = NULL;
    *slot->link = slot->next;
    if (slot->next)
        slot->next->link = slot->link;
    free(slot);
}

static struct known_fd *known_fd(struct user_net *un, int fd)
{
    return fd >= 0 && (size_t)fd < un->n_fds ? &un->fds[fd] : NULL;
}

/* The same, and there is one afterwards; NULL: out of memory. */
static struct known_fd *make_known_fd(struct user_net *un, int fd)
{
    size_t n = ((size_t)fd + 64) & ~(size_t)63;
    struct known_fd *grown;

    if ((size_t)fd < un->n_fds)
        return &un->fds[fd];
    grown = reallocarray(un->fds, n, sizeof(*grown));
    if (!grown)
        return NULL;
    memset(grown + un->n_fds, 0, (n - un->n_fds) * sizeof(*grown));
    un->fds = grown;
    un->n_fds = n;
    return &un->fds[fd];
}

static struct slot *make_slot(struct user_net *un, int fd)
{
    struct known_fd *known = make_known_fd(un, fd);
    struct slot *slot = known ? calloc(1, sizeof(*slot)) : NULL;

    if (!slot)
        return NULL;
    *slot = (struct slot){.un = un, .fd = fd, .next = un->active, .link = &un->active};
    if (slot->next)
        slot->next->link = &slot->next;
    un->active = slot;
    known->slot = slot;
    return slot;
}

static struct slot *slot_of(struct user_net *un, int fd)
{
    struct known_fd *known = known_fd(un, fd);

    return known ? known->slot : NULL;
}

/* The index that libslirp keeps is the descriptor itself. */
static int add_poll(int fd, int events, void *opaque)
{
    struct user_net *un = opaque;
    struct slot *slot = slot_of(un, fd);
    uint32_t interest = 0;

    if (events & SLIRP_POLL_IN)
        interest |= SM_LOOP_IN;
    if (events & SLIRP_POLL_OUT)
        interest |= SM_LOOP_OUT;
    if (events & SLIRP_POLL_PRI)
        interest |= SM_LOOP_PRI;
    if (!slot)
        slot = make_slot(un, fd);
    if (!slot)
        return -1; /* out of memory: asked for again with the next fill */
    if (!slot->watch) {
        if (sm_loop_add(un->loop, fd, interest, on_event, slot, &slot->watch, NULL)) {
            drop_slot(slot);
            return -1;
        }
    } else if (slot->interest != interest) {
        sm_loop_modify(slot->watch, interest);
    }
    slot->interest = interest;
    slot->round = un->round;
    return fd;
}

static int get_revents(int idx, void *opaque)
{
    struct slot *slot = slot_of(opaque, idx);
    uint32_t happened;
    int events = 0;

    if (!slot)
        return 0;
    happened = slot->happened;
    slot->happened = 0;
    if (happened & SM_LOOP_IN)
        events |= SLIRP_POLL_IN;
    if (happened & SM_LOOP_OUT)
        events |= SLIRP_POLL_OUT;
    if (happened & SM_LOOP_PRI)
        events |= SLIRP_POLL_PRI;
    if (happened & SM_LOOP_ERR)
        events |= SLIRP_POLL_ERR;
    if (happened & SM_LOOP_HUP)
        events |= SLIRP_POLL_HUP;
    return events;
}

static void pump(void *arg)
{
    struct user_net *un = arg;
    uint32_t timeout = UINT32_MAX;
    struct slot *next;

    un->pump_soon = false;
    un->pumped_ms = sm_now_ms();
    un->api.pollfds_poll(un->slirp, 0, get_revents, un);
    un->round++;
    un->api.pollfds_fill(un->slirp, &timeout, add_poll, un);
    for (struct slot *slot = un->active; slot; slot = next) {
        next = slot->next;
        if (slot->round != un->round)
            drop_slot(slot);
    }
    /* It wants to be called once a second in any case; without sockets there is no need. */
    if (!un->pump_soon && (timeout < IDLE_MS || atomic_load(&un->counters.sockets) > 0))
        sm_loop_timer_arm(un->pump_timer, SM_MAX(timeout, 1u));
    sm_virtio_net_flush(un->base.dev);
}

/* ---- libslirp's callbacks ------------------------------------------------------------------ */

static ssize_t cb_send_packet(const void *buf, size_t len, void *opaque)
{
    struct user_net *un = opaque;
    struct sm_flow *flow;
    struct sm_frame f;

    sm_frame_parse(buf, len, &f);
    flow =
        f.kind == SM_FRAME_IP && f.protocol == SM_IP_TCP ? sm_flows_find_to(&un->flows, &f) : NULL;
    if (flow)
        sm_flows_sent(&un->flows, flow, buf, &f, sm_now_ms());
    to_guest(un, buf, len);
    return (ssize_t)len;
}

static void cb_guest_error(const char *message, void *opaque)
{
    struct user_net *un = opaque;

    (void)message;
    count(&un->egress.counters.unsupported);
}

static int64_t cb_clock_get_ns(void *opaque)
{
    (void)opaque;
    return (int64_t)sm_now_ns();
}

/* The one timer is that of router advertisements. The guest is configured without them, and one that
 * never fires does not wake idle guests. */
static void *cb_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
    (void)id, (void)cb_opaque;
    return opaque;
}

static void cb_timer_free(void *timer, void *opaque)
{
    (void)timer, (void)opaque;
}

static void cb_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    (void)timer, (void)expire_ms, (void)opaque;
}

static void mark_udp_port(struct user_net *un, const struct known_fd *known, bool used)
{
    uint8_t *byte = &un->udp_ports[known->v6][known->port / 8];
    uint8_t bit = (uint8_t)(1u << (known->port % 8));

    *byte = used ? *byte | bit : *byte & (uint8_t)~bit;
}

/* libslirp makes sockets for frames of the guest alone. */
static void cb_register_fd(int fd, void *opaque)
{
    struct user_net *un = opaque;
    const struct sm_frame *f = un->parsed;
    struct known_fd *known = fd >= 0 && f ? make_known_fd(un, fd) : NULL;

    if (!known || (f->protocol == SM_IP_TCP && !un->spare)) {
        un->untracked = true;
        return;
    }
    known->protocol = f->protocol;
    known->v6 = f->v6;
    known->port = f->sport;
    atomic_fetch_add_explicit(&un->counters.sockets, 1, memory_order_relaxed);
    switch (f->protocol) {
    case SM_IP_TCP:
        known->flow = sm_steal_ptr(&un->spare);
        sm_flows_insert(&un->flows, known->flow, un->input, f, sm_now_ms());
        break;
    case SM_IP_UDP:
        un->n_udp++;
        mark_udp_port(un, known, true);
        break;
    default:
        un->n_echoes++;
        break;
    }
}

/* Also told of sockets that could not be made. */
static void cb_unregister_fd(int fd, void *opaque)
{
    struct user_net *un = opaque;
    struct known_fd *known = known_fd(un, fd);

    if (!known)
        return;
    if (known->slot)
        drop_slot(known->slot);
    switch (known->protocol) {
    case 0:
        return;
    case SM_IP_TCP:
        sm_flows_remove(&un->flows, known->flow);
        break;
    case SM_IP_UDP:
        un->n_udp--;
        mark_udp_port(un, known, false);
        break;
    default:
        un->n_echoes--;
        break;
    }
    *known = (struct known_fd){.slot = NULL};
    atomic_fetch_sub_explicit(&un->counters.sockets, 1, memory_order_relaxed);
}

static void cb_notify(void *opaque)
{
    pump_soon(opaque);
}

static const SlirpCb callbacks = {
    .send_packet = cb_send_packet,
    .guest_error = cb_guest_error,
    .clock_get_ns = cb_clock_get_ns,
    .timer_new_opaque = cb_timer_new,
    .timer_free = cb_timer_free,
    .timer_mod = cb_timer_mod,
    .register_poll_fd = cb_register_fd,
    .unregister_poll_fd = cb_unregister_fd,
    .notify = cb_notify,
};

static struct in_addr v4_of(const struct sm_ip *ip)
{
    struct in_addr addr;

    memcpy(&addr, ip->b + 12, sizeof(addr));
    return addr;
}

static struct in6_addr v6_of(const struct sm_ip *ip)
{
    struct in6_addr addr;

    memcpy(&addr, ip->b, sizeof(addr));
    return addr;
}

/* Where the guest is. It is told libslirp by us alone: frames that wait for an answer of the guest's to ARP, which
 * it need not give, would wait in libslirp. */
static void introduce_guest(struct user_net *un)
{
    uint8_t frame[SM_NEIGHBOUR_FRAME];

    memcpy(un->known_mac, un->guest_mac, sizeof(un->known_mac));
    un->introduced = true;
    un->api.input(
        un->slirp, frame, (int)sm_frame_announce(frame, un->guest_mac, &sm_subnet_v4.guest));
    un->api.input(
        un->slirp, frame, (int)sm_frame_announce(frame, un->guest_mac, &sm_subnet_v6.guest));
}

static bool start_slirp(struct user_net *un)
{
    SlirpConfig config = {
        .version = 4,
        .in_enabled = true,
        .vnetwork = v4_of(&sm_subnet_v4.net),
        .vnetmask.s_addr = htobe32(UINT32_MAX << (128 - sm_subnet_v4.prefix)),
        .vhost = v4_of(&sm_subnet_v4.gateway),
        .vnameserver = v4_of(&sm_subnet_v4.dns),
        .in6_enabled = true,
        .vprefix_addr6 = v6_of(&sm_subnet_v6.net),
        .vprefix_len = (uint8_t)sm_subnet_v6.prefix,
        .vhost6 = v6_of(&sm_subnet_v6.gateway),
        .vnameserver6 = v6_of(&sm_subnet_v6.dns),
        .vhostname = HOSTNAME,
        .vdhcp_start = v4_of(&sm_subnet_v4.guest),
        .if_mtu = SM_NET_MTU,
        .if_mru = MRU,
        .disable_host_loopback = !sm_policy_opens_host(&un->egress.policy),
        .disable_dns = true,
        .disable_dhcp = true,
    };
    sm_error err = {0};

    if (un->slirp)
        return true;
    if (un->broken)
        return false;
    if (sm_slirp_load(&un->api, &err) == 0) {
        un->slirp = un->api.create(&config, &callbacks, un);
        if (!un->slirp)
            sm_error_set(
                &err, SM_EUNSUPPORTED, "libslirp refused the guest network's configuration");
    }
    un->broken = !un->slirp;
    if (un->broken && un->trouble)
        un->trouble(un->trouble_arg, err.message);
    return !un->broken;
}

int sm_user_net_probe(sm_error *err)
{
    struct sm_slirp_api api;

    return sm_slirp_load(&api, err);
}

static void hang_up(struct user_net *un);

static void slirp_input_now(
    struct user_net *un, const uint8_t *frame, size_t len, const struct sm_frame *f)
{
    if (!start_slirp(un))
        return;
    if (!un->introduced || memcmp(un->known_mac, un->guest_mac, sizeof(un->known_mac)) != 0)
        introduce_guest(un);
    /* libslirp takes the time only when it is polled, and counts the life of new sockets from there. */
    if (sm_now_ms() - un->pumped_ms > STALE_MS)
        pump(un);
    un->input = frame;
    un->parsed = f;
    un->api.input(un->slirp, frame, (int)len);
    un->parsed = NULL;
    if (un->untracked)
        hang_up(un);
    else
        pump_soon(un);
}

/* ---- from the guest ------------------------------------------------------------------------ */

static void on_dns_answer(
    void *arg, const struct sm_dns_client *client, const uint8_t *msg, size_t len)
{
    struct user_net *un = arg;
    const struct sm_subnet *subnet = client->v6 ? &sm_subnet_v6 : &sm_subnet_v4;
    struct sm_udp_packet packet = {
        .dst_mac = un->guest_mac,
        .src_mac = gateway_mac,
        .src = subnet->dns,
        .dst = subnet->guest,
        .sport = 53,
        .dport = client->port,
        .payload = msg,
        .len = len,
    };
    size_t n = sm_frame_make_udp(un->answer, sizeof(un->answer), &packet);

    if (n > 0)
        to_guest(un, un->answer, n);
    sm_virtio_net_flush(un->base.dev);
}

/* Ends a connection for libslirp, by a reset of the guest's; frees flow. */
static void end_for_libslirp(struct user_net *un, const struct sm_flow *flow)
{
    const struct sm_tcp_reset reset = {.dst_mac = gateway_mac,
        .src_mac = un->guest_mac,
        .src = (flow->v6 ? &sm_subnet_v6 : &sm_subnet_v4)->guest,
        .dst = flow->peer,
        .sport = flow->guest_port,
        .dport = flow->peer_port,
        .seq = flow->expected,
        .flags = SM_TCP_RST};
    uint8_t frame[SM_RESET_FRAME_MAX];

    un->api.input(un->slirp, frame, (int)sm_frame_make_reset(frame, &reset));
}

/* And for the guest, by one of its peer's. */
static void end_for_guest(struct user_net *un, const struct sm_flow *flow)
{
    const struct sm_tcp_reset reset = {.dst_mac = un->guest_mac,
        .src_mac = gateway_mac,
        .src = flow->peer,
        .dst = (flow->v6 ? &sm_subnet_v6 : &sm_subnet_v4)->guest,
        .sport = flow->peer_port,
        .dport = flow->guest_port,
        .seq = flow->peer_end,
        .flags = SM_TCP_RST};
    uint8_t frame[SM_RESET_FRAME_MAX];

    to_guest(un, frame, sm_frame_make_reset(frame, &reset));
}

/* There are as many sockets as may be: the connection that was idle longest makes room. */
static bool make_room(struct user_net *un)
{
    int64_t now = sm_now_ms();
    struct sm_flow *flow = sm_flows_oldest(&un->flows.closing, now - HALF_CLOSED_IDLE_MS);

    if (!flow)
        flow = sm_flows_oldest(&un->flows.open, now - OPEN_IDLE_MS);
    if (!flow)
        return false;
    end_for_guest(un, flow);
    end_for_libslirp(un, flow);
    return atomic_load_explicit(&un->counters.sockets, memory_order_relaxed) < un->max_sockets;
}

/* May this frame, which may make a new socket, go on? A quarter of them is for TCP alone. */
static bool may_open(struct user_net *un, const struct sm_frame *f)
{
    unsigned open = atomic_load_explicit(&un->counters.sockets, memory_order_relaxed);
    unsigned others = un->max_sockets - un->max_sockets / 4;
    const struct sm_subnet *subnet = f->v6 ? &sm_subnet_v6 : &sm_subnet_v4;

    switch (f->protocol) {
    case SM_IP_TCP:
        if (un->flows.connecting >= SM_FLOWS_CONNECTING)
            return false;
        break;
    case SM_IP_UDP:
        if (un->udp_ports[f->v6][f->sport / 8] >> (f->sport % 8) & 1)
            return true;
        if (un->n_udp + un->n_echoes >= others)
            return false;
        break;
    default:
        if (f->v6 || sm_ip_in_prefix(&f->dst, &subnet->net, subnet->prefix))
            return true; /* answered by libslirp itself, or not at all */
        if (un->n_echoes >= ECHOES || un->n_udp + un->n_echoes >= others)
            return false;
        break;
    }
    return open < un->max_sockets || make_room(un);
}

/* A SYN. Data in it would be kept while libslirp connects; nobody has told a guest that it may send some. */
static bool may_connect(struct user_net *un, const uint8_t *frame, const struct sm_frame *f)
{
    struct sm_flow *flow = sm_flows_find_from(&un->flows, f);

    if (f->payload < f->end)
        return false;
    if (flow && sm_flows_is_repeated(flow, frame, f))
        return false; /* libslirp repeats its answer by itself, and must not read the options again */
    if (flow)
        end_for_libslirp(un, flow); /* the guest has forgotten it */
    if (!un->spare)
        un->spare = malloc(sizeof(*un->spare));
    return un->spare && may_open(un, f);
}

/* What libslirp may get of the guest; it would keep the rest in its memory (flows.h). */
static bool within_limits(struct user_net *un, const uint8_t *frame, const struct sm_frame *f)
{
    struct sm_flow *flow;
    bool open;

    if (f->protocol == SM_IP_TCP && !(f->tcp_flags & SM_TCP_SYN)) {
        flow = sm_flows_find_from(&un->flows, f);
        if (!flow || sm_flows_admit(&un->flows, flow, frame, f, sm_now_ms()))
            return true;
        count(&un->counters.segment_limit);
        return false;
    }
    open = f->protocol == SM_IP_TCP ? may_connect(un, frame, f) : may_open(un, f);
    if (!open)
        count(&un->counters.socket_limit);
    return open;
}

/* "Who has the gateway (name server)?", of IPv4 and IPv6. All that concerns neighbours ends here. */
static bool answer_neighbour(
    struct user_net *un, const uint8_t *frame, size_t len, const struct sm_frame *f)
{
    const struct sm_subnet *subnet = f->v6 ? &sm_subnet_v6 : &sm_subnet_v4;
    const struct sm_ip *const hosts[] = {&subnet->gateway, &subnet->dns};
    bool arp = f->kind == SM_FRAME_ARP;
    uint8_t reply[SM_NEIGHBOUR_FRAME];
    size_t n = 0;

    if (!arp && (f->protocol != SM_IP_ICMPV6 ||
                    (f->icmp_type != SM_ICMPV6_NS && f->icmp_type != SM_ICMPV6_NA)))
        return false;
    for (size_t i = 0; i < SM_ARRAY_LEN(hosts) && n == 0; i++)
        n = arp ? sm_frame_answer_arp(reply, frame, len, gateway_mac, hosts[i])
                : sm_frame_answer_ns(reply, frame, f, gateway_mac, hosts[i]);
    if (n > 0)
        to_guest(un, reply, n);
    return true;
}

static void reject(struct user_net *un, const uint8_t *frame, const struct sm_frame *f)
{
    uint8_t answer[SM_FRAME_REFUSAL_MAX];
    size_t n = sm_frame_refuse(answer, sizeof(answer), frame, f);

    if (n > 0)
        to_guest(un, answer, n);
}

static bool user_send(
    struct sm_net_backend *backend, const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    struct user_net *un = user_net_of(backend);
    struct sm_frame f;

    sm_net_complete_checksum(hdr, frame, len);
    memcpy(un->guest_mac, frame + SM_ETH_ALEN, SM_ETH_ALEN);
    if (sm_frame_is_fragment(frame, len)) {
        frame = sm_reassembly_add(&un->fragments, frame, len, sm_now_ms(), &len);
        if (!frame)
            return true;
    }
    switch (sm_egress_judge(&un->egress, frame, len, (uint64_t)sm_now_ms(), &f)) {
    case SM_EGRESS_PASS:
        if (!answer_neighbour(un, frame, len, &f) && within_limits(un, frame, &f))
            slirp_input_now(un, frame, len, &f);
        break;
    case SM_EGRESS_DNS: {
        struct sm_dns_client client = {.v6 = f.v6, .port = f.sport};

        sm_dns_proxy_ask(un->dns, &client, frame + f.payload, f.end - f.payload);
        break;
    }
    case SM_EGRESS_REJECT:
        reject(un, frame, &f);
        break;
    case SM_EGRESS_DROP:
        break;
    }
    return true;
}

static void user_sent_all(struct sm_net_backend *backend)
{
    sm_virtio_net_flush(backend->dev);
}

/* ---- life ---------------------------------------------------------------------------------- */

/* A reset or another guest: connections are those of the old one. */
static void hang_up(struct user_net *un)
{
    if (un->slirp)
        un->api.cleanup(un->slirp);
    un->slirp = NULL;
    un->introduced = false;
    un->pumped_ms = 0;
    while (un->active)
        drop_slot(un->active);
    while (un->backlog)
        drop_first(un);
    for (size_t fd = 0; fd < un->n_fds; fd++)
        cb_unregister_fd((int)fd, un); /* nothing, as long as libslirp has told of each */
    sm_loop_timer_disarm(un->pump_timer);
    un->pump_soon = false;
    un->untracked = false;
    sm_reassembly_clear(&un->fragments);
    sm_names_clear(&un->egress.names);
    sm_dns_proxy_reset(un->dns);
}

static void user_configure(struct sm_net_backend *backend, uint64_t features)
{
    struct user_net *un = user_net_of(backend);

    hang_up(un);
    un->guest_csum = features & (1ULL << VIRTIO_NET_F_GUEST_CSUM);
}

static void user_destroy(struct sm_net_backend *backend)
{
    struct user_net *un = user_net_of(backend);

    hang_up(un);
    sm_dns_proxy_destroy(un->dns);
    sm_loop_timer_destroy(un->pump_timer);
    sm_egress_clear(&un->egress);
    free(un->fds);
    free(un->spare);
    free(un);
}

int sm_user_net_create(struct sm_loop *loop, const struct sm_user_net_config *config,
    struct sm_net_backend **backend, sm_error *err)
{
    static const struct sm_net_backend_ops ops = {
        .send = user_send,
        .sent_all = user_sent_all,
        .rx_ready = user_rx_ready,
        .configure = user_configure,
        .destroy = user_destroy,
    };
    auto_free struct user_net *un = calloc(1, sizeof(*un));
    SM_CLEANUP(sm_own_address_destroy_cleanup) struct sm_own_address *own = NULL;
    struct sm_policy open = {0};
    int rc;

    if (!un)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the guest's network");
    un->base = (struct sm_net_backend){
        .ops = &ops,
        .mtu = SM_NET_MTU,
        .link_up = true,
    };
    un->loop = loop;
    un->trouble = config->trouble;
    un->trouble_arg = config->trouble_arg;
    un->max_sockets = config->max_sockets ? config->max_sockets : SM_USER_NET_SOCKETS;
    un->backlog_end = &un->backlog;
    rc = sm_own_address_create(&own, err);
    if (!rc)
        rc = sm_loop_timer_create(loop, pump, un, &un->pump_timer, err);
    if (rc)
        return rc;
    rc = sm_dns_proxy_create(
        loop, &un->egress, config->resolv_conf, on_dns_answer, un, &un->dns, err);
    if (rc) {
        sm_loop_timer_destroy(un->pump_timer);
        return rc;
    }
    sm_egress_init(&un->egress, config->policy ? config->policy : &open, true, config->denied,
        config->denied_arg);
    un->egress.own = sm_steal_ptr(&own);
    *backend = &sm_steal_ptr(&un)->base;
    return 0;
}

const struct sm_egress *sm_user_net_egress(const struct sm_net_backend *backend)
{
    return &((const struct user_net *)(const void *)backend)->egress;
}

const struct sm_user_net_counters *sm_user_net_counters(const struct sm_net_backend *backend)
{
    return &((const struct user_net *)(const void *)backend)->counters;
}
