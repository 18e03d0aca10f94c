/* The network of a VM. See network.h. */
#include "vm/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    if (config->dns || config->dns_search || config->dns_options)
        return sm_error_set(err, SM_EINVAL,
            "names cannot be resolved without a network; leave out the network 'none'");
    return 0;
}

static int read_dns(struct sm_vm_resolver *r, const char *const *texts, sm_error *err)
{
    for (; texts && *texts; texts++) {
        if (r->n_dns == SM_GUEST_NET_DNS)
            return sm_error_set(err, SM_EINVAL,
                "'%.100s' is one name server too many; a resolv.conf has at most %d", *texts,
                SM_GUEST_NET_DNS);
        if (!sm_ip_parse(*texts, &r->dns[r->n_dns]))
            return sm_error_set(
                err, SM_EINVAL, "'%.100s' is not the address of a name server", *texts);
        r->n_dns++;
    }
    return 0;
}

static int read_words(
    char words[SM_RESOLV_WORDS + 1], const char *const *texts, const char *what, sm_error *err)
{
    for (; *texts; texts++)
        if (!sm_resolv_conf_add(words, *texts))
            return sm_error_set(err, SM_EINVAL,
                "'%.100s' is no %s, or one too many: all of them have %d characters at most",
                *texts, what, SM_RESOLV_WORDS);
    return 0;
}

static int read_resolver(
    struct sm_vm_resolver *r, const struct sm_vm_network_config *config, sm_error *err)
{
    const char *const *search = config->dns_search, *const *options = config->dns_options;
    r->has_search = search && *search;
    r->has_options = options && *options;
    int rc = read_dns(r, config->dns, err);
    if (!rc && r->has_search && (strcmp(search[0], ".") != 0 || search[1]))
        rc = read_words(r->search, search, "search domain", err);
    if (!rc && r->has_options)
        rc = read_words(r->options, options, "option of a resolver", err);
    return rc;
}

/* Names are learnt where our name server answers, and with rules for them others are closed. Of
 * addresses a policy is what the VM gets at, its name servers as well. */
static int check_resolver(const struct sm_vm_network *network, sm_error *err)
{
    bool names = sm_policy_has_names(&network->policy);
    const struct sm_vm_resolver *r = &network->resolver;
    for (size_t i = 0; i < r->n_dns; i++)
        if (names || sm_policy_decide(&network->policy, &r->dns[i], 53, NULL) != SM_VERDICT_ALLOW)
            return sm_error_set(err, SM_EUNSUPPORTED,
                "a name server of one's own is not possible with this network policy, which %s; "
                "leave out either",
                names ? "learns names from the guest's usual one"
                      : "does not let the VM get at it");
    return 0;
}

/* What a tap interface cannot enforce must not look as if it were. */
static int check_policy(const struct sm_vm_network *network, sm_error *err)
{
    if (network->mode == SM_NETWORK_USER)
        return check_resolver(network, err);
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

static void tell(void *arg, const char *line)
{
    struct sm_vm_network *network = arg;
    pthread_mutex_lock(&network->telling);
    network->notice(network->notice_arg, line);
    pthread_mutex_unlock(&network->telling);
}

static void take_events(struct sm_vm_network *network, const struct sm_vm_events *events)
{
    network->events = *events;
    network->notice = events->notice;
    network->notice_arg = events->notice_arg;
    pthread_mutex_init(&network->telling, NULL);
    if (events->notice) {
        network->events.notice = tell;
        network->events.notice_arg = network;
    }
}

int sm_vm_network_init(struct sm_vm_network *network, const struct sm_vm_network_config *config,
    const struct sm_vm_events *events, sm_error *err)
{
    *network = (struct sm_vm_network){.resolv_conf = RESOLV_CONF};
    take_events(network, events);
    int rc = parse_mode(network, config->plug ? config->plug : "user", err);
    if (!rc && network->mode == SM_NETWORK_NONE)
        rc = check_unplugged(config, err);
    if (!rc)
        rc = read_resolver(&network->resolver, config, err);
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
    pthread_mutex_destroy(&network->telling);
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

/* What the guest's resolv.conf is to be: as at boot where nobody asks for anything else. */
static void write_resolver(const struct sm_vm_network *network, struct sm_guest_net *net,
    char text[SM_RESOLV_TEXT_MAX + 1])
{
    const struct sm_vm_resolver *own = &network->resolver;
    struct sm_resolv_conf host = {.file.path = network->resolv_conf};
    sm_resolv_conf_refresh(&host);
    if (own->n_dns > 0) {
        memcpy(net->dns, own->dns, sizeof(net->dns));
        net->n_dns = own->n_dns;
    } else if (net->n_dns == 0) {
        sm_guest_net_resolvers(net, &host);
    }
    if (own->has_search)
        memcpy(host.search, own->search, sizeof(host.search));
    if (own->has_options)
        memcpy(host.options, own->options, sizeof(host.options));
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
    write_resolver(network, net, text->resolv_conf);
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
