/*
 * The policy at work: every frame of a guest is judged here before anything acts on it.
 *
 * Stateless but for the table of learned names. In the user-mode network libslirp makes a host
 * socket for TCP only when a segment has SYN, so those are judged with ports and names, and other
 * segments of TCP can only reach connections that a judged SYN has made (a name's TTL may end, its
 * connections live on). UDP and ICMP echo are judged packet by packet.
 *
 * What the guest may not do is refused with an answer, so that its programs fail at once, and
 * counted and reported (a few reports a second; the rest only as a number).
 *
 * Of the virtual subnet only the gateway (the host's loopback, if the policy opens ports of it) and
 * the name server exist. Multicast and broadcast go nowhere.
 *
 * Threads: the loop's thread; the counters may be read from any.
 */
#ifndef SM_NET_EGRESS_H
#define SM_NET_EGRESS_H

#include <stdatomic.h>

#include "net/frame.h"
#include "net/names.h"
#include "net/own_address.h"
#include "net/policy.h"
#include "util/rate.h"

/* Addresses of the virtual network, the same in every VM: a snapshot's guest keeps its own. */
struct sm_subnet {
    struct sm_ip net, guest, gateway, dns;
    unsigned prefix; /* of the 16-byte form */
};
extern const struct sm_subnet sm_subnet_v4; /* 10.0.2.0/24: guest .15, gateway .2, name server .3 */
extern const struct sm_subnet sm_subnet_v6; /* fd73:6d6e:6574::/64: guest ::15, ::2, ::3 */

struct sm_denial {
    enum sm_verdict verdict;
    uint8_t protocol; /* SM_IP_TCP, ... */
    int port;         /* SM_NO_PORT: none */
    struct sm_ip addr;
    const char *name;    /* the name that was asked for, or NULL */
    uint64_t suppressed; /* denials since the last report that were not reported */
};
typedef void sm_denial_fn(void *arg, const struct sm_denial *denial);

struct sm_egress_counters {
    atomic_ullong passed;
    atomic_ullong unsupported;              /* malformed or of a kind that is not carried */
    atomic_ullong denied[SM_VERDICT_COUNT]; /* by reason */
};

struct sm_egress {
    struct sm_policy policy;
    struct sm_names names;
    struct sm_own_address *own; /* owned; NULL: the host's addresses are like others */
    bool user; /* behind us is our user-mode network: only the virtual subnet's guest may speak, and
                * there is connection state behind us; else every segment and fragment is judged */
    /* not user: IPv6 neighbours are those of this network; prefix 0: there is none */
    struct sm_ip link;
    unsigned link_prefix;
    struct sm_egress_counters counters;
    sm_denial_fn *denied; /* or NULL */
    void *denied_arg;
    struct sm_rate reports;
};

enum sm_egress_action {
    SM_EGRESS_DROP,   /* silently */
    SM_EGRESS_REJECT, /* and tell the guest: sm_frame_refuse */
    SM_EGRESS_PASS,
    SM_EGRESS_DNS, /* for our name server, by UDP or TCP: never to be passed on as it is */
};

/* What the policy says of an address that is none of the virtual subnet's, this host's addresses
 * set apart. */
enum sm_verdict sm_egress_decide(struct sm_egress *egress, const struct sm_ip *ip, int port,
    const struct sm_name_set *names, uint64_t now_ms);

/* Takes the policy over (leaves an empty one behind). */
void sm_egress_init(struct sm_egress *egress, struct sm_policy *policy, bool user,
    sm_denial_fn *denied, void *denied_arg);
void sm_egress_clear(struct sm_egress *egress);

/* Judges a frame; *f is filled for the caller. now_ms is any monotonic clock. */
enum sm_egress_action sm_egress_judge(struct sm_egress *egress, const uint8_t *frame, size_t len,
    uint64_t now_ms, struct sm_frame *f);

/* Counts and reports a denial that was decided elsewhere (names, answers). */
void sm_egress_deny(struct sm_egress *egress, const struct sm_denial *denial, uint64_t now_ms);

#endif
