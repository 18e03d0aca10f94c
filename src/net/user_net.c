/*
 * The user-mode network. See user_net.h.
 *
 * System calls: socket(AF_INET).
 */
#include "net/user_net.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/backlog.h"
#include "net/dns_proxy.h"
#include "net/dns_tcp.h"
#include "net/reassembly.h"
#include "net/slirp.h"
#include "net/sockets.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"

struct user_net {
    struct sm_net_backend base;
    struct sm_egress egress;
    struct sm_dns_proxy *dns;
    struct sm_dns_tcp dns_tcp;
    struct sm_slirp slirp;
    bool broken; /* libslirp could not be loaded: said once */
    void (*trouble)(void *arg, const char *message);
    void *trouble_arg;
    struct sm_user_net_counters counters;

    const uint8_t *input; /* the frame that libslirp is looking at, */
    const struct sm_frame *parsed;
    struct sm_sockets sockets;
    bool untracked; /* there was no memory to keep track of one */
    struct sm_reassembly fragments;

    bool guest_csum;
    uint8_t guest_mac[6]; /* of the last frame */
    uint8_t known_mac[6]; /* that libslirp knows, if ... */
    bool introduced;      /* ... it knows one */
    struct sm_backlog backlog;
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
    frame = sm_dns_tcp_unaim(&un->dns_tcp, frame, len);
    if (!sm_backlog_deliver(&un->backlog, un->base.card, &hdr, frame, len))
        count(&un->counters.backlog_limit);
}

static void user_rx_ready(struct sm_net_backend *backend)
{
    sm_backlog_resume(&user_net_of(backend)->backlog, backend->card);
    sm_net_flush(backend->card);
}

/* ---- libslirp ------------------------------------------------------------------------------ */

static void on_send(void *arg, const void *frame, size_t len)
{
    struct user_net *un = arg;
    sm_sockets_sent(&un->sockets, frame, len);
    to_guest(un, frame, len);
}

/* libslirp makes sockets for frames of the guest alone. */
static void on_opened(void *arg, int fd)
{
    struct user_net *un = arg;
    if (!sm_sockets_opened(&un->sockets, fd, un->input, un->parsed))
        un->untracked = true;
    else
        sm_dns_tcp_opened(&un->dns_tcp, fd, un->parsed);
}

static void on_closed(void *arg, int fd)
{
    struct user_net *un = arg;
    sm_sockets_closed(&un->sockets, fd);
    sm_dns_tcp_closed(&un->dns_tcp, fd);
}

static void on_nonsense(void *arg)
{
    struct user_net *un = arg;
    count(&un->egress.counters.unsupported);
}

static bool on_pumped(void *arg)
{
    struct user_net *un = arg;
    sm_net_flush(un->base.card);
    return atomic_load(&un->counters.sockets) > 0;
}

static const struct sm_slirp_user slirp_user = {
    .send = on_send,
    .opened = on_opened,
    .closed = on_closed,
    .nonsense = on_nonsense,
    .pumped = on_pumped,
};

/* Where the guest is. It is told libslirp by us alone: frames that wait for an answer of the
 * guest's to ARP, which it need not give, would wait in libslirp. */
static void introduce_guest(struct user_net *un)
{
    memcpy(un->known_mac, un->guest_mac, sizeof(un->known_mac));
    un->introduced = true;
    uint8_t frame[SM_NEIGHBOUR_FRAME];
    sm_slirp_input(&un->slirp, frame, sm_frame_announce(frame, un->guest_mac, &sm_subnet_v4.guest));
    sm_slirp_input(&un->slirp, frame, sm_frame_announce(frame, un->guest_mac, &sm_subnet_v6.guest));
}

static bool start_slirp(struct user_net *un)
{
    if (un->broken)
        return false;
    sm_error err = {0};
    un->broken = sm_slirp_start(&un->slirp, sm_policy_opens_host(&un->egress.policy), &err) != 0;
    if (un->broken && un->trouble)
        un->trouble(un->trouble_arg, err.message);
    return !un->broken;
}

static void hang_up(struct user_net *un);

static void slirp_input_now(
    struct user_net *un, const uint8_t *frame, size_t len, const struct sm_frame *f)
{
    if (!start_slirp(un))
        return;
    if (!un->introduced || memcmp(un->known_mac, un->guest_mac, sizeof(un->known_mac)) != 0)
        introduce_guest(un);
    sm_slirp_catch_up(&un->slirp);
    un->input = frame;
    un->parsed = f;
    sm_slirp_input(&un->slirp, frame, len);
    un->parsed = NULL;
    if (un->untracked)
        hang_up(un);
    else
        sm_slirp_pump_soon(&un->slirp);
}

/* ---- from the guest ------------------------------------------------------------------------ */

static void on_dns_answer(
    void *arg, const struct sm_dns_client *client, const uint8_t *msg, size_t len)
{
    struct user_net *un = arg;
    if (client->stream) {
        sm_dns_tcp_answer(&un->dns_tcp, client, msg, len);
        return;
    }
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
    sm_net_flush(un->base.card);
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
    sm_slirp_input(&un->slirp, frame, sm_frame_make_reset(frame, &reset));
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

static bool on_end_of(void *arg, int fd)
{
    struct user_net *un = arg;
    return sm_sockets_end(&un->sockets, fd);
}

static void on_end(void *arg, const struct sm_flow *flow, bool for_guest)
{
    if (for_guest)
        end_for_guest(arg, flow);
    end_for_libslirp(arg, flow);
}

/* "Who has the gateway (name server)?", of IPv4 and IPv6. All that concerns neighbours ends
 * here. */
static bool answer_neighbour(
    struct user_net *un, const uint8_t *frame, size_t len, const struct sm_frame *f)
{
    bool arp = f->kind == SM_FRAME_ARP;
    if (!arp && (f->protocol != SM_IP_ICMPV6 ||
                    (f->icmp_type != SM_ICMPV6_NS && f->icmp_type != SM_ICMPV6_NA)))
        return false;
    const struct sm_subnet *subnet = f->v6 ? &sm_subnet_v6 : &sm_subnet_v4;
    const struct sm_ip *const hosts[] = {&subnet->gateway, &subnet->dns};
    uint8_t reply[SM_NEIGHBOUR_FRAME];
    size_t n = 0;
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

/* Asked each time: what the host allows may change. A raw socket would do for root, but not for a
 * process of his without capabilities. */
static bool host_can_ping(void)
{
    auto_fd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_ICMP);
    return fd >= 0;
}

/* An echo request to the outside that cannot be made, so that ping is to fail at once: libslirp
 * drops those of IPv6, and where it may open no socket for one it sends a datagram to port 7. */
static bool is_lost_echo(const struct sm_frame *f)
{
    const struct sm_subnet *subnet = f->v6 ? &sm_subnet_v6 : &sm_subnet_v4;
    if (f->protocol != SM_IP_ICMP && f->protocol != SM_IP_ICMPV6)
        return false;
    return !sm_ip_in_prefix(&f->dst, &subnet->net, subnet->prefix) && (f->v6 || !host_can_ping());
}

static void pass_on(struct user_net *un, const uint8_t *frame, size_t len, const struct sm_frame *f)
{
    if (is_lost_echo(f))
        reject(un, frame, f);
    else if (sm_sockets_admit(&un->sockets, frame, f))
        slirp_input_now(un, frame, len, f);
}

static void ask_name_server(struct user_net *un, uint8_t *frame, size_t len, struct sm_frame *f)
{
    struct sm_dns_client client = {.v6 = f->v6, .port = f->sport};
    if (f->protocol == SM_IP_UDP) {
        (void)sm_dns_proxy_ask(un->dns, &client, frame + f->payload, f->end - f->payload);
    } else if (sm_dns_tcp_aim(&un->dns_tcp, frame, f)) {
        pass_on(un, frame, len, f);
        sm_dns_tcp_passed(&un->dns_tcp, f);
    } else {
        reject(un, frame, f);
    }
}

static bool user_send(
    struct sm_net_backend *backend, const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    struct user_net *un = user_net_of(backend);
    sm_net_complete_checksum(hdr, frame, len);
    memcpy(un->guest_mac, frame + SM_ETH_ALEN, SM_ETH_ALEN);
    if (sm_frame_is_fragment(frame, len)) {
        frame = sm_reassembly_add(&un->fragments, frame, len, sm_now_ms(), &len);
        if (!frame)
            return true;
    }
    struct sm_frame f;
    switch (sm_egress_judge(&un->egress, frame, len, (uint64_t)sm_now_ms(), &f)) {
    case SM_EGRESS_PASS:
        if (!answer_neighbour(un, frame, len, &f))
            pass_on(un, frame, len, &f);
        break;
    case SM_EGRESS_DNS:
        ask_name_server(un, frame, len, &f);
        break;
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
    sm_net_flush(backend->card);
}

/* ---- life ---------------------------------------------------------------------------------- */

/* A reset or another guest: connections are those of the old one. */
static void hang_up(struct user_net *un)
{
    sm_slirp_stop(&un->slirp);
    sm_sockets_clear(&un->sockets);
    sm_dns_tcp_clear(&un->dns_tcp);
    un->introduced = false;
    sm_backlog_clear(&un->backlog);
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
    sm_dns_tcp_fini(&un->dns_tcp);
    sm_dns_proxy_destroy(un->dns);
    sm_slirp_fini(&un->slirp);
    sm_sockets_fini(&un->sockets);
    sm_egress_clear(&un->egress);
    free(un);
}

int sm_user_net_create(struct sm_loop *loop, const struct sm_user_net_config *config,
    struct sm_net_backend **backend, sm_error *err)
{
    auto_free struct user_net *un = calloc(1, sizeof(*un));
    if (!un)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the guest's network");
    static const struct sm_net_backend_ops ops = {
        .send = user_send,
        .sent_all = user_sent_all,
        .rx_ready = user_rx_ready,
        .configure = user_configure,
        .destroy = user_destroy,
    };
    un->base = (struct sm_net_backend){
        .ops = &ops,
        .mtu = SM_NET_MTU,
        .link_up = true,
    };
    un->trouble = config->trouble;
    un->trouble_arg = config->trouble_arg;
    un->sockets.max = config->max_sockets ? config->max_sockets : SM_USER_NET_SOCKETS;
    un->sockets.end = on_end;
    un->sockets.end_arg = un;
    un->sockets.n = &un->counters.sockets;
    un->sockets.socket_limit = &un->counters.socket_limit;
    un->sockets.segment_limit = &un->counters.segment_limit;
    sm_backlog_init(&un->backlog, SM_USER_NET_BACKLOG);
    SM_CLEANUP(sm_own_address_destroy_cleanup) struct sm_own_address *own = NULL;
    int rc = sm_own_address_create(&own, err);
    if (!rc)
        rc = sm_slirp_init(&un->slirp, loop, &slirp_user, un, err);
    if (rc)
        return rc;
    rc = sm_dns_proxy_create(
        loop, &un->egress, config->resolv_conf, on_dns_answer, un, &un->dns, err);
    if (!rc)
        rc = sm_dns_tcp_init(&un->dns_tcp, loop, un->dns, on_end_of, un, err);
    if (rc) {
        sm_dns_proxy_destroy(un->dns);
        sm_slirp_fini(&un->slirp);
        return rc;
    }
    if (config->asked)
        sm_dns_proxy_have_told(un->dns, config->asked, config->asked_arg);
    struct sm_policy open = {0};
    sm_egress_init(&un->egress, config->policy ? config->policy : &open, true, config->denied,
        config->denied_arg);
    un->egress.own = sm_steal_ptr(&own);
    *backend = &sm_steal_ptr(&un)->base;
    return 0;
}

void sm_user_net_tell(struct sm_net_backend *backend, char *resolv_conf)
{
    sm_dns_proxy_tell(user_net_of(backend)->dns, resolv_conf);
}

const struct sm_egress *sm_user_net_egress(const struct sm_net_backend *backend)
{
    return &((const struct user_net *)(const void *)backend)->egress;
}

const struct sm_user_net_counters *sm_user_net_counters(const struct sm_net_backend *backend)
{
    return &((const struct user_net *)(const void *)backend)->counters;
}
