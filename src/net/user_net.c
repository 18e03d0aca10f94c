/* The user-mode network. See user_net.h. */
#include "net/user_net.h"

#include <stdlib.h>
#include <string.h>

#include "net/dns_proxy.h"
#include "net/slirp_api.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"

#define HOSTNAME "supermachine"
#define IDLE_MS  1000
#define STALE_MS 50

/* One descriptor of libslirp. Its own allocation: the loop keeps the address. */
struct slot {
    struct user_net *un;
    struct sm_loop_watch *watch;
    int fd;
    uint32_t interest; /* EPOLL* */
    uint32_t happened; /* since the last pump */
    uint64_t round;    /* the last fill that wanted it */
    struct slot *next, **link;
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
    struct slot **slots; /* by descriptor */
    size_t n_slots;

    bool guest_csum;
    uint8_t guest_mac[6]; /* of the last frame */
    struct waiting *backlog, **backlog_end;
    size_t backlog_bytes;
    uint8_t udp_ports[2][65536 / 8]; /* source ports (v4, v6) that have a socket, or had one */
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
    slot->un->slots[slot->fd] = NULL;
    *slot->link = slot->next;
    if (slot->next)
        slot->next->link = slot->link;
    free(slot);
}

static struct slot *make_slot(struct user_net *un, int fd)
{
    struct slot *slot;

    if ((size_t)fd >= un->n_slots) {
        size_t n = ((size_t)fd + 64) & ~(size_t)63;
        struct slot **grown = reallocarray(un->slots, n, sizeof(void *));

        if (!grown)
            return NULL;
        un->slots = grown;
        while (un->n_slots < n)
            un->slots[un->n_slots++] = NULL;
    }
    slot = calloc(1, sizeof(*slot));
    if (!slot)
        return NULL;
    *slot = (struct slot){.un = un, .fd = fd, .next = un->active, .link = &un->active};
    if (slot->next)
        slot->next->link = &slot->next;
    un->active = slot;
    un->slots[fd] = slot;
    return slot;
}

static struct slot *slot_of(struct user_net *un, int fd)
{
    return fd >= 0 && (size_t)fd < un->n_slots ? un->slots[fd] : NULL;
}

/* The index that libslirp keeps is the descriptor itself. */
static int add_poll(int fd, int events, void *opaque)
{
    struct user_net *un = opaque;
    struct slot *slot = slot_of(un, fd);
    uint32_t interest = 0;

    if (events & SLIRP_POLL_IN)
        interest |= EPOLLIN;
    if (events & SLIRP_POLL_OUT)
        interest |= EPOLLOUT;
    if (events & SLIRP_POLL_PRI)
        interest |= EPOLLPRI;
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
    if (happened & EPOLLIN)
        events |= SLIRP_POLL_IN;
    if (happened & EPOLLOUT)
        events |= SLIRP_POLL_OUT;
    if (happened & EPOLLPRI)
        events |= SLIRP_POLL_PRI;
    if (happened & EPOLLERR)
        events |= SLIRP_POLL_ERR;
    if (happened & EPOLLHUP)
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
    to_guest(opaque, buf, len);
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

static void cb_register_fd(int fd, void *opaque)
{
    struct user_net *un = opaque;

    (void)fd;
    atomic_fetch_add_explicit(&un->counters.sockets, 1, memory_order_relaxed);
}

static void cb_unregister_fd(int fd, void *opaque)
{
    struct user_net *un = opaque;
    struct slot *slot = slot_of(un, fd);

    if (slot)
        drop_slot(slot);
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
        .if_mru = SM_NET_MTU,
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
        un->slirp = un->api.new(&config, &callbacks, un);
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

static void slirp_input_now(struct user_net *un, const uint8_t *frame, size_t len)
{
    if (!start_slirp(un))
        return;
    /* libslirp takes the time only when it is polled, and counts the life of new sockets from there. */
    if (sm_now_ms() - un->pumped_ms > STALE_MS)
        pump(un);
    un->api.input(un->slirp, frame, (int)len);
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

/* May this frame make a new socket? At the limit only UDP from known ports goes on (most of them have
 * a socket already), and at twice the limit nothing. */
static bool within_limits(struct user_net *un, const struct sm_frame *f)
{
    unsigned open = atomic_load_explicit(&un->counters.sockets, memory_order_relaxed);
    uint8_t *known = &un->udp_ports[f->v6][f->sport / 8];
    uint8_t bit = (uint8_t)(1u << (f->sport % 8));

    if (f->kind != SM_FRAME_IP || f->later_fragment)
        return true;
    if (f->protocol == SM_IP_TCP && !(f->tcp_flags & SM_TCP_SYN))
        return true;
    if (open < un->max_sockets) {
        if (f->protocol == SM_IP_UDP)
            *known |= bit;
        return true;
    }
    if (f->protocol == SM_IP_UDP && (*known & bit) && open < un->max_sockets * 2)
        return true;
    count(&un->counters.socket_limit);
    return false;
}

/* "Who has the gateway (name server)?", without libslirp: guests ask it at boot already. */
static bool answer_arp(struct user_net *un, const uint8_t *frame, size_t len)
{
    uint8_t reply[SM_ARP_FRAME];
    size_t n = sm_frame_answer_arp(reply, frame, len, gateway_mac, &sm_subnet_v4.gateway);

    if (n == 0)
        n = sm_frame_answer_arp(reply, frame, len, gateway_mac, &sm_subnet_v4.dns);
    if (n > 0)
        to_guest(un, reply, n);
    return n > 0;
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
    switch (sm_egress_judge(&un->egress, frame, len, (uint64_t)sm_now_ms(), &f)) {
    case SM_EGRESS_PASS:
        if (f.kind == SM_FRAME_ARP && answer_arp(un, frame, len))
            break;
        if (within_limits(un, &f))
            slirp_input_now(un, frame, len);
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
    un->pumped_ms = 0;
    while (un->active)
        drop_slot(un->active);
    while (un->backlog)
        drop_first(un);
    sm_loop_timer_disarm(un->pump_timer);
    un->pump_soon = false;
    atomic_store(&un->counters.sockets, 0);
    memset(un->udp_ports, 0, sizeof(un->udp_ports));
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
    free(un->slots);
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
