/* The way of the ports to a guest that is on their own loop, for tests. */
#ifndef PORTS_LINK_H
#define PORTS_LINK_H

#include <stdatomic.h>

#include "devices/vsock/vsock.h"
#include "net/ports/guest_link.h"

struct ports_link {
    struct sm_vsock *vsock;
    atomic_bool busy; /* nobody is let in */
    sm_guest_lead_fn *lead;
    void *lead_arg;
};

static inline bool ports_link_is_ready(void *arg)
{
    struct ports_link *l = arg;
    return !atomic_load(&l->busy);
}

static inline bool ports_link_bridge(void *arg, int fd, const struct sm_vsock_target *target)
{
    const struct ports_link *l = arg;
    return sm_vsock_bridge(l->vsock, fd, target);
}

static inline void ports_link_ask(void *arg, uint32_t ticket, uint32_t port)
{
    const struct ports_link *l = arg;
    sm_vsock_lead(l->vsock, ticket, l->lead(l->lead_arg, port));
}

static inline void ports_link_accept_any(void *arg, sm_guest_lead_fn *lead, void *lead_arg)
{
    struct ports_link *l = arg;
    l->lead = lead;
    l->lead_arg = lead_arg;
    sm_vsock_accept_any(l->vsock, lead ? ports_link_ask : NULL, l);
}

static inline struct sm_guest_link ports_link_of(struct ports_link *l)
{
    return (struct sm_guest_link){.arg = l,
        .is_ready = ports_link_is_ready,
        .bridge = ports_link_bridge,
        .accept_any = ports_link_accept_any};
}

#endif
