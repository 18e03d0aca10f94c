/*
 * How the ports reach the guest: functions of whoever has its vsock device, which may be in another
 * process. Nothing but a descriptor and plain values goes through them.
 *
 * Threads: the ports' loop calls them; none of them waits for the guest.
 */
#ifndef SM_NET_PORTS_GUEST_LINK_H
#define SM_NET_PORTS_GUEST_LINK_H

#include "devices/vsock/target.h"

/* Where the guest's connection to a vsock port of the host leads: a connected stream socket; -1: it
 * is reset. On any thread, one call at a time; does not block. */
typedef int sm_guest_lead_fn(void *arg, uint32_t port);

struct sm_guest_link {
    void *arg;
    /* False: too many sockets are on their way to the guest, or it is paused. bridge will take
     * one when this has said true. */
    bool (*is_ready)(void *arg);
    /* Connects `fd`, a stream socket, to the guest, as sm_vsock_bridge does, sooner or later. fd is
     * taken over in any case; that the guest has refused shows by its end. False: it is closed
     * already. */
    bool (*bridge)(void *arg, int fd, const struct sm_vsock_target *target);
    /* Asks `lead` where the guest's own connections lead; NULL: nowhere (any more), and it is not
     * called again after the return. */
    void (*accept_any)(void *arg, sm_guest_lead_fn *lead, void *lead_arg);
};

#endif
