/* The engine's network: what the card is plugged into, and how ports reach the guest. See
 * engine.h. */
#include <stdlib.h>

#include "devices/vsock/vsock.h"
#include "net/tap.h"
#include "net/unplugged.h"
#include "net/user_net.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "vm/engine_impl.h"
#include "vm/network.h"
#include "vm/notices.h"

/* ---- the card -------------------------------------------------------------------------------- */

static void on_denied(void *arg, const struct sm_denial *denial)
{
    const struct sm_vm_network *network = arg;
    sm_notice_denial(&network->events, denial);
}

static void on_trouble(void *arg, const char *message)
{
    const struct sm_vm_network *network = arg;
    network->events.notice(network->events.notice_arg, message);
}

static int make_user_net(
    void *arg, struct sm_loop *loop, struct sm_net_backend **backend, sm_error *err)
{
    struct sm_vm_network *network = arg;
    const struct sm_user_net_config config = {
        .policy = &network->policy,
        .denied = network->events.notice ? on_denied : NULL,
        .denied_arg = network,
        .trouble = network->events.notice ? on_trouble : NULL,
        .trouble_arg = network,
    };
    return sm_user_net_create(loop, &config, backend, err);
}

static int make_tap(void *arg, struct sm_loop *loop, struct sm_net_backend **backend, sm_error *err)
{
    struct sm_vm_network *network = arg;
    const struct sm_guest_addr *v6 = &network->tap.net.v6;
    auto_fd fd = -1;
    struct sm_tap_config config = {
        .policy = network->policy.n_layers ? &network->policy : NULL,
        .denied = network->events.notice ? on_denied : NULL,
        .denied_arg = network,
        .link = v6->addr,
        .link_prefix = v6->given ? v6->prefix : 0,
    };
    int rc = sm_tap_open(network->tap.ifname, &fd, &network->tap.net.mtu, err);
    if (rc)
        return rc;
    config.fd = fd;
    rc = sm_tap_create(loop, &config, backend, err);
    if (!rc)
        sm_steal_fd(&fd);
    return rc;
}

struct sm_machine_part sm_engine_card(struct sm_engine *e)
{
    struct sm_vm_network *network = e->network;
    const uint8_t *mac = network->mode == SM_NETWORK_TAP ? network->tap.net.mac : sm_user_net_mac;
    sm_part_plug_fn *plug = sm_net_unplugged;
    if (network->mode == SM_NETWORK_USER)
        plug = make_user_net;
    else if (network->mode == SM_NETWORK_TAP)
        plug = make_tap;
    return sm_part_net(plug, network, mac);
}

/* ---- the way to the guest -------------------------------------------------------------------- */

/* While the machine stands still none is taken; so many wait at most. */
#define BRIDGING_MAX 256

static bool is_ready(void *arg)
{
    struct sm_engine *e = arg;
    return atomic_load(&e->bridging) < BRIDGING_MAX;
}

struct bridge {
    struct sm_engine *engine;
    int fd;
    struct sm_vsock_target target;
};

static void do_bridge(void *arg)
{
    struct bridge *b = arg;
    sm_vsock_bridge(sm_machine_vsock(b->engine->machine), b->fd, &b->target);
    atomic_fetch_sub(&b->engine->bridging, 1);
    free(b);
}

static bool bridge(void *arg, int fd, const struct sm_vsock_target *target)
{
    struct sm_engine *e = arg;
    struct bridge *b = malloc(sizeof(*b));
    if (b)
        *b = (struct bridge){.engine = e, .fd = fd, .target = *target};
    atomic_fetch_add(&e->bridging, 1);
    if (b && sm_loop_post(sm_machine_loop(e->machine), do_bridge, b, NULL) == 0)
        return true;
    atomic_fetch_sub(&e->bridging, 1);
    free(b);
    sm_close(fd);
    return false;
}

static void on_asked(void *arg, uint32_t ticket, uint32_t port)
{
    struct sm_engine *e = arg;
    sm_vsock_lead(sm_machine_vsock(e->machine), ticket, e->lead(e->lead_arg, port));
}

struct lead {
    struct sm_engine *engine;
    sm_guest_lead_fn *fn;
    void *arg;
};

static void do_accept_any(void *arg)
{
    const struct lead *l = arg;
    l->engine->lead = l->fn;
    l->engine->lead_arg = l->arg;
    sm_vsock_accept_any(sm_machine_vsock(l->engine->machine), l->fn ? on_asked : NULL, l->engine);
}

static void accept_any(void *arg, sm_guest_lead_fn *fn, void *fn_arg)
{
    struct sm_engine *e = arg;
    struct lead l = {.engine = e, .fn = fn, .arg = fn_arg};
    sm_loop_run(sm_machine_loop(e->machine), do_accept_any, &l);
}

void sm_engine_link(struct sm_engine *e, struct sm_guest_link *link)
{
    *link = (struct sm_guest_link){
        .arg = e, .is_ready = is_ready, .bridge = bridge, .accept_any = accept_any};
}
