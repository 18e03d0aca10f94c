/* Frames judged: who may have sent it, where it goes, what the policy says, and the report if it
 * may not. See egress.h. The order is from the cheap to the dear: the parser, the virtual subnet,
 * this host's own addresses (which the kernel is asked for), the rules. */
#include "net/egress.h"

#include <string.h>

#include "util/bytes.h"

#define REPORTS_PER_SECOND 5
#define REPORTS_BURST      20

#define V4(a, b, c, d)                                                                             \
    {                                                                                              \
        {                                                                                          \
            [10] = 0xff, [11] = 0xff, [12] = (a), [13] = (b), [14] = (c), [15] = (d)               \
        }                                                                                          \
    }
#define V6(last)                                                                                   \
    {                                                                                              \
        {                                                                                          \
            0xfd, 0x73, 0x6d, 0x6e, 0x65, 0x74, [15] = (last)                                      \
        }                                                                                          \
    }

const struct sm_subnet sm_subnet_v4 = {
    .net = V4(10, 0, 2, 0),
    .guest = V4(10, 0, 2, 15),
    .gateway = V4(10, 0, 2, 2),
    .dns = V4(10, 0, 2, 3),
    .prefix = 96 + 24,
};
const struct sm_subnet sm_subnet_v6 = {
    .net = V6(0),
    .guest = V6(0x15),
    .gateway = V6(0x02),
    .dns = V6(0x03),
    .prefix = 64,
};

void sm_egress_init(struct sm_egress *egress, struct sm_policy *policy, bool user,
    sm_denial_fn *denied, void *denied_arg)
{
    *egress = (struct sm_egress){
        .policy = *policy,
        .user = user,
        .denied = denied,
        .denied_arg = denied_arg,
        .reports = sm_rate_make(REPORTS_PER_SECOND, REPORTS_BURST),
    };
    *policy = (struct sm_policy){0};
}

void sm_egress_clear(struct sm_egress *egress)
{
    sm_policy_clear(&egress->policy);
    sm_names_clear(&egress->names);
    sm_own_address_destroy(egress->own);
    egress->own = NULL;
}

void sm_egress_deny(struct sm_egress *egress, const struct sm_denial *denial, uint64_t now_ms)
{
    atomic_fetch_add_explicit(&egress->counters.denied[denial->verdict], 1, memory_order_relaxed);
    struct sm_denial report = *denial;
    if (egress->denied && sm_rate_take(&egress->reports, now_ms, &report.suppressed))
        egress->denied(egress->denied_arg, &report);
}

static enum sm_egress_action unsupported(struct sm_egress *egress)
{
    atomic_fetch_add_explicit(&egress->counters.unsupported, 1, memory_order_relaxed);
    return SM_EGRESS_DROP;
}

static enum sm_egress_action pass(struct sm_egress *egress)
{
    atomic_fetch_add_explicit(&egress->counters.passed, 1, memory_order_relaxed);
    return SM_EGRESS_PASS;
}

static bool has_ports(const struct sm_frame *f)
{
    return !f->later_fragment && (f->protocol == SM_IP_TCP || f->protocol == SM_IP_UDP);
}

static enum sm_egress_action deny(
    struct sm_egress *egress, const struct sm_frame *f, enum sm_verdict verdict, uint64_t now_ms)
{
    struct sm_denial denial = {
        .verdict = verdict,
        .protocol = f->protocol,
        .port = has_ports(f) ? f->dport : SM_NO_PORT,
        .addr = f->dst,
    };
    sm_egress_deny(egress, &denial, now_ms);
    return SM_EGRESS_REJECT;
}

static bool is_multicast(const struct sm_frame *f)
{
    if (f->v6)
        return f->dst.b[0] == 0xff;
    return f->dst.b[12] >= 224; /* and limited broadcast */
}

static bool is_link_local_v6(const struct sm_ip *ip)
{
    return ip->b[0] == 0xfe && (ip->b[1] & 0xc0) == 0x80;
}

static bool is_echo(const struct sm_frame *f)
{
    return (f->protocol == SM_IP_ICMP && f->icmp_type == SM_ICMP_ECHO) ||
           (f->protocol == SM_IP_ICMPV6 && f->icmp_type == SM_ICMPV6_ECHO);
}

/* Neighbour discovery: the only use of link-local and multicast addresses. It goes to neighbours:
 * what a router forwards is nobody's neighbour. */
static bool is_neighbour_discovery(const struct sm_egress *egress, const struct sm_frame *f)
{
    if (f->protocol != SM_IP_ICMPV6 ||
        (f->icmp_type != SM_ICMPV6_NS && f->icmp_type != SM_ICMPV6_NA))
        return false;
    if (is_link_local_v6(&f->dst) || (f->dst.b[0] == 0xff && f->dst.b[1] == 0x02))
        return true;
    if (egress->user)
        return sm_ip_in_prefix(&f->dst, &sm_subnet_v6.net, sm_subnet_v6.prefix);
    return egress->link_prefix && sm_ip_in_prefix(&f->dst, &egress->link, egress->link_prefix);
}

/* The gateway and the name server, the only inhabitants of the subnet. */
static enum sm_egress_action judge_neighbour(struct sm_egress *egress, const struct sm_frame *f,
    const struct sm_subnet *subnet, uint64_t now_ms)
{
    bool gateway = sm_ip_equal(&f->dst, &subnet->gateway);
    bool dns = sm_ip_equal(&f->dst, &subnet->dns);
    if (!gateway && !dns)
        return unsupported(egress);
    if (is_echo(f))
        return pass(egress); /* answered by the network itself */
    if (dns && has_ports(f) && f->dport == 53)
        return SM_EGRESS_DNS;
    if (gateway && has_ports(f)) {
        enum sm_verdict v = sm_policy_decide_host(&egress->policy, f->dport);
        if (v != SM_VERDICT_ALLOW)
            return deny(egress, f, v, now_ms);
        return pass(egress);
    }
    return dns ? SM_EGRESS_REJECT : unsupported(egress);
}

enum sm_verdict sm_egress_decide(struct sm_egress *egress, const struct sm_ip *ip, int port,
    const struct sm_name_set *names, uint64_t now_ms)
{
    if (sm_own_address_has(egress->own, ip, now_ms))
        return sm_policy_decide_own(&egress->policy, ip, port, names);
    return sm_policy_decide(&egress->policy, ip, port, names);
}

enum sm_egress_action sm_egress_judge(
    struct sm_egress *egress, const uint8_t *frame, size_t len, uint64_t now_ms, struct sm_frame *f)
{
    sm_frame_parse(frame, len, f);
    if (f->kind == SM_FRAME_BAD)
        return unsupported(egress);
    if (f->kind == SM_FRAME_ARP)
        return pass(egress);
    if (is_neighbour_discovery(egress, f))
        return pass(egress);
    const struct sm_subnet *subnet = f->v6 ? &sm_subnet_v6 : &sm_subnet_v4;
    if (is_multicast(f) || (f->v6 && is_link_local_v6(&f->dst)))
        return unsupported(egress);
    if (egress->user) {
        if (!sm_ip_equal(&f->src, &subnet->guest) || f->fragment)
            return unsupported(egress);
        if (sm_ip_in_prefix(&f->dst, &subnet->net, subnet->prefix))
            return judge_neighbour(egress, f, subnet, now_ms);
    }
    if (egress->user && f->protocol == SM_IP_TCP && !(f->tcp_flags & SM_TCP_SYN))
        return pass(egress);
    if (!has_ports(f) && !is_echo(f) && !f->later_fragment)
        return unsupported(egress);
    const struct sm_name_set *names = f->protocol == SM_IP_UDP
                                          ? sm_names_touch(&egress->names, &f->dst, now_ms)
                                          : sm_names_find(&egress->names, &f->dst, now_ms);
    enum sm_verdict v =
        sm_egress_decide(egress, &f->dst, has_ports(f) ? f->dport : SM_NO_PORT, names, now_ms);
    return v == SM_VERDICT_ALLOW ? pass(egress) : deny(egress, f, v, now_ms);
}
