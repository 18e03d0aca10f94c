/* The engine's network: what the card is plugged into, and the ports that lead to the guest. See
 * engine.h. */
#include <stdlib.h>

#include "devices/vsock/vsock.h"
#include "net/ports/found.h"
#include "net/ports/ports.h"
#include "net/tap.h"
#include "net/unplugged.h"
#include "net/user_net.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "vm/engine_impl.h"
#include "vm/network.h"
#include "vm/notices.h"

#define FOUND_BURST    16 /* ports that are told of */
#define FOUND_A_SECOND 2

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

/* ---- ports ----------------------------------------------------------------------------------- */

static void on_connection(void *arg, const struct sm_port_connection *connection)
{
    const struct sm_vm_network *network = arg;
    sm_notice_connection(&network->events, connection);
}

static void on_found(void *arg, const struct sm_port_spec *spec)
{
    struct sm_engine *e = arg;
    uint64_t suppressed;
    if (sm_rate_take(&e->found_rate, (uint64_t)sm_now_ms(), &suppressed))
        sm_notice_found(&e->network->events, spec, suppressed);
}

static bool is_ready(void *arg)
{
    (void)arg;
    return true; /* on the device's own loop nobody waits */
}

static bool bridge(void *arg, int fd, const struct sm_vsock_target *target)
{
    struct sm_engine *e = arg;
    return sm_vsock_bridge(sm_machine_vsock(e->machine), fd, target);
}

static void on_asked(void *arg, uint32_t ticket, uint32_t port)
{
    struct sm_engine *e = arg;
    sm_vsock_lead(sm_machine_vsock(e->machine), ticket, e->lead(e->lead_arg, port));
}

static void accept_any(void *arg, sm_guest_lead_fn *lead, void *lead_arg)
{
    struct sm_engine *e = arg;
    e->lead = lead;
    e->lead_arg = lead_arg;
    sm_vsock_accept_any(sm_machine_vsock(e->machine), lead ? on_asked : NULL, e);
}

int sm_engine_open_ports(struct sm_engine *e, sm_error *err)
{
    const struct sm_vm_events *events = &e->network->events;
    const struct sm_guest_link link = {
        .arg = e, .is_ready = is_ready, .bridge = bridge, .accept_any = accept_any};
    return sm_ports_create(sm_machine_loop(e->machine), &link,
        events->notice && events->connections ? on_connection : NULL, e->network, &e->ports, err);
}

void sm_engine_close_ports(struct sm_engine *e)
{
    sm_listeners_destroy(e->listeners);
    sm_ports_destroy(e->ports);
    e->listeners = NULL;
    e->ports = NULL;
}

int sm_engine_publish(struct sm_engine *e, struct sm_port_spec *spec, sm_error *err)
{
    return sm_ports_publish(e->ports, spec, err);
}

size_t sm_engine_ports(struct sm_engine *e, struct sm_port_spec *specs, size_t max)
{
    return sm_ports_list(e->ports, specs, max);
}

int sm_engine_find_ports(
    struct sm_engine *e, const struct sm_listener *known, size_t n, sm_error *err)
{
    const struct sm_vm_events *events = &e->network->events;
    const struct sm_card_addresses card = sm_vm_network_card(e->network);
    e->found_rate = sm_rate_make(FOUND_A_SECOND, FOUND_BURST);
    int rc = sm_listeners_create(
        e->ports, &card, events->notice && events->ports ? on_found : NULL, e, &e->listeners, err);
    if (!rc && n)
        sm_listeners_set(e->listeners, known, n);
    return rc;
}

void sm_engine_watch(struct sm_engine *e)
{
    if (e->listeners)
        sm_listeners_watch(e->listeners);
}

int sm_engine_front_door(struct sm_engine *e, const char *path, sm_error *err)
{
    return sm_ports_front_door(e->ports, path, err);
}
