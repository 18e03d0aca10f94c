/*
 * The user-mode network: a network backend behind which libslirp turns the guest's connections into
 * sockets of this process, so that no privileges are needed. Every frame passes the egress policy
 * first; DNS never reaches libslirp but goes to our own forwarder.
 *
 * Loading. libslirp brings glib with it, which costs 0.3 ms (2 ms cold) and 30 relocated pages to load:
 * too much for the restore of a guest that may never send a packet. So it is loaded by dlopen when the
 * first frame has passed the policy, on the loop's thread.
 *
 * Driving. libslirp wants poll(2): fill a set, wait, hand back what happened. The loop is epoll: after
 * each batch of work one "pump" hands back the events gathered so far, asks for the new set, changes
 * those watches that differ, and arms the timer. libslirp tells when it opens and closes descriptors.
 *
 * Bounds, whatever the guest does. libslirp has a buffer of 64 KiB (an MTU) for each frame that it keeps, and two
 * of 128 KiB for each connection. What it may keep is decided here, before it sees a frame: the number of
 * sockets (of them so many for UDP and echo), of connections under way, of segments that are not in order
 * (flows.h). It sees no fragment (reassembly.h), no data in a SYN, and no ARP or neighbour discovery: those are
 * answered here, and libslirp is told where the guest is, so that nothing waits for the guest to say so.
 * Of our own: the bytes of frames that wait for receive buffers, the questions under way (DNS proxy). Beyond
 * the bounds frames are dropped, as networks do; docs/network.md has the sum.
 *
 * A snapshot holds nothing of this: connections are reset by the first segment after a restore.
 */
#ifndef SM_NET_USER_NET_H
#define SM_NET_USER_NET_H

#include "devices/virtio_net.h"
#include "net/egress.h"

struct sm_user_net_config {
    struct sm_policy *policy; /* taken over, left empty; NULL: allow all */
    sm_denial_fn *denied;     /* on the loop's thread; or NULL */
    void *denied_arg;
    const char *resolv_conf;                         /* NULL: /etc/resolv.conf */
    unsigned max_sockets;                            /* 0: SM_USER_NET_SOCKETS */
    void (*trouble)(void *arg, const char *message); /* libslirp is missing, ...; or NULL */
    void *trouble_arg;
};

#define SM_USER_NET_SOCKETS 1024
#define SM_USER_NET_BACKLOG (2u << 20) /* bytes that wait for the guest */

struct sm_user_net_counters {
    atomic_uint sockets;         /* open now */
    atomic_ullong socket_limit;  /* frames dropped because they wanted one more */
    atomic_ullong segment_limit; /* TCP segments dropped because too many are not in order */
    atomic_ullong backlog_limit; /* frames dropped because the guest did not take them */
};

/* The MAC address of the guest is the same everywhere: each network is a world of its own. */
extern const uint8_t sm_user_net_mac[6];

int sm_user_net_create(struct sm_loop *loop, const struct sm_user_net_config *config,
    struct sm_net_backend **backend, sm_error *err);

const struct sm_egress *sm_user_net_egress(const struct sm_net_backend *backend);
const struct sm_user_net_counters *sm_user_net_counters(const struct sm_net_backend *backend);

/* Loads libslirp now: 0, or what is wrong with it (for `doctor` and tests). */
int sm_user_net_probe(sm_error *err);

#endif
