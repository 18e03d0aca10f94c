/* The network of a VM. See network.h. */
#include "vm/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/tap.h"
#include "net/unplugged.h"
#include "net/user_net.h"
#include "util/error.h"

#define TAP_PREFIX  "tap:"
#define RESOLV_CONF "/etc/resolv.conf"

static const char *protocol_name(unsigned protocol)
{
    switch (protocol) {
    case SM_IP_TCP:
        return "TCP";
    case SM_IP_UDP:
        return "UDP";
    default:
        return "ICMP";
    }
}

static void on_denied(void *arg, const struct sm_denial *d)
{
    const struct sm_vm_network *to = arg;
    char line[512], addr[SM_IP_TEXT], port[24] = "", more[64] = "";

    if (d->port != SM_NO_PORT)
        snprintf(port, sizeof(port), " port %d", d->port);
    if (d->suppressed)
        snprintf(more, sizeof(more), " (and %llu more)", (unsigned long long)d->suppressed);
    if (d->name)
        snprintf(line, sizeof(line), "denied: look-up of %.200s: %s%s", d->name,
            sm_verdict_text(d->verdict), more);
    else
        snprintf(line, sizeof(line), "denied: %s %s%s: %s%s", protocol_name(d->protocol),
            sm_ip_format(&d->addr, addr), port, sm_verdict_text(d->verdict), more);
    to->notice(to->notice_arg, line);
}

static void on_trouble(void *arg, const char *message)
{
    const struct sm_vm_network *to = arg;

    to->notice(to->notice_arg, message);
}

static int parse_mode(struct sm_vm_network *network, const char *mode, sm_error *err)
{
    if (strcmp(mode, "user") == 0) {
        network->mode = SM_NETWORK_USER;
    } else if (strcmp(mode, "none") == 0) {
        network->mode = SM_NETWORK_NONE;
    } else if (strncmp(mode, TAP_PREFIX, strlen(TAP_PREFIX)) == 0) {
        network->mode = SM_NETWORK_TAP;
        return sm_tap_spec_parse(mode + strlen(TAP_PREFIX), &network->tap, err);
    } else {
        return sm_error_set(
            err, SM_EINVAL, "there is no network '%.100s'; it is user, none or tap:IFNAME", mode);
    }
    return 0;
}

/* What would do nothing must not look as if it did. */
static int check_unplugged(const sm_vm_config *config, sm_error *err)
{
    if (config->publish && *config->publish)
        return sm_error_set(err, SM_EINVAL,
            "a port (%.100s) cannot be published without a network; leave out the network 'none'",
            *config->publish);
    if (config->publish_exposed)
        return sm_error_set(err, SM_EINVAL,
            "the image's ports cannot be published without a network; leave out the network 'none'");
    return 0;
}

/* What a tap interface cannot enforce must not look as if it were. */
static int check_policy(const struct sm_vm_network *network, sm_error *err)
{
    if (network->mode != SM_NETWORK_TAP)
        return 0;
    if (sm_policy_has_names(&network->policy))
        return sm_error_set(err, SM_EUNSUPPORTED,
            "rules with names cannot be enforced on a tap interface, "
            "whose name servers are not ours; allow and deny addresses");
    if (sm_policy_opens_host(&network->policy))
        return sm_error_set(err, SM_EUNSUPPORTED,
            "host-loopback cannot be opened on a tap interface; "
            "let the service listen on the interface's address");
    return 0;
}

int sm_vm_network_init(struct sm_vm_network *network, const sm_vm_config *config, sm_error *err)
{
    int rc;

    *network = (struct sm_vm_network){.notice = config->notice, .notice_arg = config->notice_arg};
    rc = parse_mode(network, config->network ? config->network : "user", err);
    if (!rc && network->mode == SM_NETWORK_NONE)
        rc = check_unplugged(config, err);
    for (const char *const *port = config->publish; port && *port && !rc; port++)
        rc = sm_port_spec_parse(*port, &(struct sm_port_spec){0}, err);
    if (!rc && config->egress)
        rc = sm_policy_parse(config->egress, strlen(config->egress), &network->policy, err);
    return rc ? rc : check_policy(network, err);
}

int sm_vm_network_narrow(struct sm_vm_network *network, const char *saved, sm_error *err)
{
    auto_policy policy = {0};
    int rc = sm_policy_parse(saved, strlen(saved), &policy, err);

    if (!rc)
        rc = sm_policy_narrow(&network->policy, &policy, err);
    if (!rc)
        rc = check_policy(network, err);
    return rc ? sm_error_prefix(err, rc, "the snapshot's network policy") : 0;
}

int sm_vm_network_policy(const struct sm_vm_network *network, char **text, sm_error *err)
{
    *text = NULL;
    return network->policy.n_layers ? sm_policy_format(&network->policy, text, err) : 0;
}

void sm_vm_network_clear(struct sm_vm_network *network)
{
    sm_policy_clear(&network->policy);
    free(network->known);
    network->known = NULL;
}

static int make_user_net(
    void *arg, struct sm_loop *loop, struct sm_net_backend **backend, sm_error *err)
{
    struct sm_vm_network *network = arg;
    const struct sm_user_net_config config = {
        .policy = &network->policy,
        .denied = network->notice ? on_denied : NULL,
        .denied_arg = network,
        .trouble = network->notice ? on_trouble : NULL,
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
        .denied = network->notice ? on_denied : NULL,
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

void sm_vm_network_plug(struct sm_vm_network *network, struct sm_machine_config *machine)
{
    const uint8_t *mac = network->mode == SM_NETWORK_TAP ? network->tap.net.mac : sm_user_net_mac;

    memcpy(machine->mac, mac, sizeof(machine->mac));
    machine->network_arg = network;
    switch (network->mode) {
    case SM_NETWORK_USER:
        machine->network = make_user_net;
        break;
    case SM_NETWORK_NONE:
        machine->network = sm_net_unplugged;
        break;
    case SM_NETWORK_TAP:
        machine->network = make_tap;
        break;
    }
}

static struct sm_wire_bytes ip_bytes(bool given, const struct sm_ip *ip)
{
    bool v4 = sm_ip_is_v4(ip);

    if (!given)
        return (struct sm_wire_bytes){.data = NULL};
    return (struct sm_wire_bytes){.data = ip->b + (v4 ? 12 : 0), .len = v4 ? 4 : 16};
}

bool sm_vm_network_describe(struct sm_vm_network *network, struct sm_network_text *text,
    struct sm_wire_set_network *message)
{
    struct sm_guest_net *net = &text->net;

    if (network->mode == SM_NETWORK_NONE || (network->mode == SM_NETWORK_USER && !network->moved))
        return false;
    network->moved = network->mode == SM_NETWORK_TAP;
    if (network->moved)
        *net = network->tap.net;
    else
        sm_guest_net_user(net);
    if (net->n_dns == 0)
        sm_guest_net_resolvers(net, RESOLV_CONF);
    sm_guest_net_resolv_text(net, text->resolv_conf);
    *message = (struct sm_wire_set_network){
        .mac = {.data = net->mac, .len = sizeof(net->mac)},
        .mtu = net->mtu,
        .address4 = ip_bytes(net->v4.given, &net->v4.addr),
        .gateway4 = ip_bytes(net->v4.routed, &net->v4.gateway),
        .address6 = ip_bytes(net->v6.given, &net->v6.addr),
        .gateway6 = ip_bytes(net->v6.routed, &net->v6.gateway),
        .prefix4 = net->v4.prefix,
        .prefix6 = net->v6.prefix,
        .resolv_conf = text->resolv_conf,
    };
    return true;
}
