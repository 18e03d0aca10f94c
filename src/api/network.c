#include "api/network.h"

#include <stdio.h>
#include <string.h>

#include "net/user_net.h"
#include "util/error.h"

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

int sm_vm_network_init(struct sm_vm_network *network, const sm_vm_config *config, sm_error *err)
{
    const char *mode = config->network ? config->network : "user";
    int rc = 0;

    *network = (struct sm_vm_network){
        .user = strcmp(mode, "user") == 0,
        .notice = config->notice,
        .notice_arg = config->notice_arg,
    };
    if (!network->user && strcmp(mode, "none") != 0)
        return sm_error_set(
            err, SM_EINVAL, "there is no network '%.100s'; it is user or none", mode);
    for (const char *const *port = config->publish; port && *port && !rc; port++)
        rc = sm_port_spec_parse(*port, &(struct sm_port_spec){0}, err);
    if (!rc && config->egress)
        rc = sm_policy_parse(config->egress, strlen(config->egress), &network->policy, err);
    return rc;
}

int sm_vm_network_narrow(struct sm_vm_network *network, const char *saved, sm_error *err)
{
    auto_policy policy = {0};
    int rc = sm_policy_parse(saved, strlen(saved), &policy, err);

    if (!rc)
        rc = sm_policy_narrow(&network->policy, &policy, err);
    return rc ? sm_error_prefix(err, rc, "the snapshot's network policy") : 0;
}

void sm_vm_network_clear(struct sm_vm_network *network)
{
    sm_policy_clear(&network->policy);
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

void sm_vm_network_plug(struct sm_vm_network *network, struct sm_machine_config *machine)
{
    memcpy(machine->mac, sm_user_net_mac, sizeof(machine->mac));
    if (network->user) {
        machine->network = make_user_net;
        machine->network_arg = network;
    }
}

int sm_vm_network_publish(struct sm_vm_network *network, struct sm_machine *machine,
    const char *port, sm_error *err)
{
    struct sm_port_spec spec;
    int rc = sm_port_spec_parse(port, &spec, err);

    if (!rc && !network->ports)
        rc = sm_ports_create(
            sm_machine_loop(machine), sm_machine_vsock(machine), &network->ports, err);
    return rc ? rc : sm_ports_publish(network->ports, &spec, err);
}

int sm_vm_network_open(struct sm_vm_network *network, struct sm_machine *machine,
    const sm_vm_config *config, sm_error *err)
{
    int rc = 0;

    for (const char *const *port = config->publish; port && *port && !rc; port++)
        rc = sm_vm_network_publish(network, machine, *port, err);
    return rc;
}

void sm_vm_network_close(struct sm_vm_network *network)
{
    sm_ports_destroy(network->ports);
    network->ports = NULL;
}
