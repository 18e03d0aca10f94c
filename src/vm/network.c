/* The network of a VM. See network.h. */
#include "vm/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/ports/ports.h"
#include "net/resolv_conf.h"
#include "util/error.h"
#include "vm/registry.h"

#define TAP_PREFIX  "tap:"
#define RESOLV_CONF "/etc/resolv.conf"

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
static int check_unplugged(const struct sm_vm_network_config *config, sm_error *err)
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

int sm_vm_network_init(struct sm_vm_network *network, const struct sm_vm_network_config *config,
    const struct sm_vm_events *events, sm_error *err)
{
    *network = (struct sm_vm_network){.events = *events, .resolv_conf = RESOLV_CONF};
    int rc = parse_mode(network, config->plug ? config->plug : "user", err);
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

int sm_vm_network_remember(
    struct sm_vm_network *network, const struct sm_snapshot *snapshot, sm_error *err)
{
    struct sm_listener found[SM_LISTENERS_MAX];
    size_t n = sm_registry_read(snapshot, found);
    if (n == 0)
        return 0;
    network->known = malloc(n * sizeof(*found));
    if (!network->known)
        return sm_error_set(err, SM_ENOMEM, "no memory for what listens in the snapshot");
    memcpy(network->known, found, n * sizeof(*found));
    network->n_known = n;
    return 0;
}

void sm_vm_network_clear(struct sm_vm_network *network)
{
    sm_policy_clear(&network->policy);
    free(network->known);
    network->known = NULL;
}

static struct sm_wire_bytes ip_bytes(bool given, const struct sm_ip *ip)
{
    if (!given)
        return (struct sm_wire_bytes){.data = NULL};
    bool v4 = sm_ip_is_v4(ip);
    return (struct sm_wire_bytes){.data = ip->b + (v4 ? 12 : 0), .len = v4 ? 4 : 16};
}

struct sm_card_addresses sm_vm_network_card(const struct sm_vm_network *network)
{
    struct sm_guest_net user;
    sm_guest_net_user(&user);
    const struct sm_guest_net *net = network->mode == SM_NETWORK_TAP ? &network->tap.net : &user;
    return (struct sm_card_addresses){.v4 = net->v4.addr, .v6 = net->v6.addr};
}

/* What the guest's resolv.conf is to be: as at boot where the host asks for nothing else. */
static void write_resolver(
    struct sm_guest_net *net, const char *path, char text[SM_RESOLV_TEXT_MAX + 1])
{
    struct sm_resolv_conf host = {.path = path};
    sm_resolv_conf_refresh(&host);
    if (net->n_dns == 0)
        sm_guest_net_resolvers(net, &host);
    sm_guest_net_resolv_text(net, &host, text);
}

bool sm_vm_network_describe(struct sm_vm_network *network, struct sm_vm_network_text *text,
    struct sm_wire_set_network *message)
{
    if (network->mode == SM_NETWORK_NONE)
        return false;
    bool tap = network->mode == SM_NETWORK_TAP, move = tap || network->moved;
    struct sm_guest_net *net = &text->net;
    if (tap)
        *net = network->tap.net;
    else
        sm_guest_net_user(net);
    write_resolver(net, network->resolv_conf, text->resolv_conf);
    bool told = strcmp(text->resolv_conf, SM_WIRE_RESOLV_CONF) != 0;
    if (!move && !told && !network->told)
        return false;
    network->moved = tap;
    network->told = told;
    *message = (struct sm_wire_set_network){.resolv_conf = text->resolv_conf};
    if (!move)
        return true;
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
