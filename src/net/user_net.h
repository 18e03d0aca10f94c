/*
 * The user-mode network: a network backend behind which libslirp turns the guest's connections into
 * sockets of this process, so that no privileges are needed. Every frame passes the egress policy
 * first; DNS never reaches libslirp but goes to our own forwarder.
 *
 * Here it is put together of its parts: slirp.h drives libslirp, which is loaded when the first
 * frame has passed the policy; sockets.h bounds what libslirp keeps, backlog.h what waits for the
 * guest, reassembly.h puts fragments together, of which libslirp sees none. Nor does it see ARP or
 * neighbour discovery: those are answered here, and libslirp is told where the guest is, so that
 * nothing waits for the guest to say so. Beyond the bounds frames are dropped, as networks do;
 * docs/network.md has the sum.
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
    const char *resolv_conf; /* NULL: /etc/resolv.conf */
    /* Told of each question to the name server: then the contents of resolv.conf are said by
     * sm_user_net_tell, and no file is read. Or NULL. */
    void (*asked)(void *arg);
    void *asked_arg;
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

/* The contents of resolv.conf, which is written to. */
void sm_user_net_tell(struct sm_net_backend *backend, char *resolv_conf);

const struct sm_egress *sm_user_net_egress(const struct sm_net_backend *backend);
const struct sm_user_net_counters *sm_user_net_counters(const struct sm_net_backend *backend);

#endif
