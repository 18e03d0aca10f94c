/*
 * A network backend on a tap interface: the guest's frames go to the host's kernel as the guest's
 * driver made them, checksums and large TCP segments left to be done (IFF_VNET_HDR), and come back
 * the same way.
 *
 * To the guest: while the interface has frames they are read in batches, each into the one buffer
 * and from there into the guest's. A frame for which the guest has no buffers stays in that buffer,
 * and the interface is not read until there are; what comes meanwhile waits in the kernel's queue,
 * whose length is the interface's. From the guest: written at once; when the kernel has too much of
 * it in flight (TAP_SEND_BUFFER), the frame stays in the guest's ring until the kernel has room.
 *
 * What is queued is always as the driver wants it: the kernel is told with each (re)configuration
 * what the driver can take, and a frame from before that the driver could not take is dropped.
 *
 * Policy. Without one nothing is judged: the interface's rules are the host's. With one every frame
 * passes egress.h, which behind a tap can lean on no connection state and so judges each segment of
 * TCP; frames that it does not understand (VLAN, IPv6 extension headers, multicast, ...) go
 * nowhere. Names cannot be enforced, as the answers of name servers do not come from us.
 */
#ifndef SM_NET_TAP_H
#define SM_NET_TAP_H

#include "devices/virtio_net.h"
#include "net/egress.h"

/* Opens the interface, or makes one where there is none of the name (it is gone with the
 * descriptor; CAP_NET_ADMIN), and tells its MTU. The errors say what is in the way. */
int sm_tap_open(const char *ifname, int *fd, uint16_t *mtu, sm_error *err);

struct sm_tap_config {
    int fd; /* taken over on success: of sm_tap_open, or anything that keeps frames apart */
    struct sm_policy *policy; /* taken over, left empty; NULL: nothing is judged */
    sm_denial_fn *denied;     /* on the loop's thread; or NULL */
    void *denied_arg;
    struct sm_ip link; /* IPv6 network of the interface; prefix 0: none */
    unsigned link_prefix;
};

int sm_tap_create(struct sm_loop *loop, const struct sm_tap_config *config,
    struct sm_net_backend **backend, sm_error *err);

struct sm_tap_counters {
    atomic_ullong refused; /* frames that the kernel did not take: interface down, malformed */
    atomic_ullong stale;   /* frames for the guest that its driver cannot take (any more) */
};
const struct sm_tap_counters *sm_tap_counters(const struct sm_net_backend *backend);

#endif
