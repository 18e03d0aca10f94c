/* How the guest is reached: ports that are published, what was found to listen, the front door. See network.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/frame.h"
#include "util/clock.h"
#include "util/error.h"
#include "vm/network.h"
#include "vm/registry.h"

#define FOUND_BURST    16 /* ports that are told of */
#define FOUND_A_SECOND 2

static const char *protocol_name(unsigned protocol)
{
    return protocol == SM_IP_UDP ? "udp" : "tcp";
}

static void on_found(void *arg, const struct sm_port_spec *spec)
{
    struct sm_vm_network *to = arg;
    char line[128], more[64] = "";
    uint64_t suppressed;

    if (!sm_rate_take(&to->found_rate, (uint64_t)sm_now_ms(), &suppressed))
        return;
    if (suppressed)
        snprintf(more, sizeof(more), " (and %llu more)", (unsigned long long)suppressed);
    snprintf(line, sizeof(line), "port %u/%s of the VM is reached at 127.0.0.1:%u%s",
        spec->guest_port, protocol_name(spec->protocol), spec->host_port, more);
    to->notice(to->notice_arg, line);
}

static void on_connection(void *arg, const struct sm_port_connection *c)
{
    const struct sm_vm_network *to = arg;
    char line[256], addr[SM_IP_TEXT], from[96] = "through the socket", more[64] = "";

    if (c->source)
        snprintf(
            from, sizeof(from), "from %s port %u", sm_ip_format(c->source, addr), c->source_port);
    if (c->suppressed)
        snprintf(more, sizeof(more), " (and %llu more)", (unsigned long long)c->suppressed);
    snprintf(line, sizeof(line), "connection %s to port %u/%s%s", from, c->guest_port,
        protocol_name(c->protocol), more);
    to->notice(to->notice_arg, line);
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

int sm_vm_network_publish(struct sm_vm_network *network, const char *port, sm_error *err)
{
    struct sm_port_spec spec;
    int rc = sm_port_spec_parse(port, &spec, err);

    if (!rc && network->mode == SM_NETWORK_NONE)
        return sm_error_set(
            err, SM_EINVAL, "port %u cannot be published: the VM has no network", spec.guest_port);
    return rc ? rc : sm_ports_publish(network->ports, &spec, err);
}

/* Unless it was published already. */
static int publish_exposed(struct sm_vm_network *network, const char *port, sm_error *err)
{
    struct sm_port_spec specs[SM_PORTS_MAX], spec;
    size_t n = sm_ports_list(network->ports, specs, SM_PORTS_MAX);
    int rc = sm_port_spec_parse(port, &spec, err);

    for (size_t i = 0; i < n && !rc; i++) {
        if (specs[i].guest_port == spec.guest_port && specs[i].protocol == spec.protocol)
            return 0;
    }
    if (!rc)
        rc = sm_ports_publish(network->ports, &spec, err);
    return rc ? sm_error_prefix(err, rc, "the image's exposed ports") : 0;
}

int sm_vm_network_open(struct sm_vm_network *network, struct sm_machine *machine,
    const struct sm_oci_config *image, const sm_vm_config *config, sm_error *err)
{
    struct sm_loop *loop = sm_machine_loop(machine);
    struct sm_vsock *vsock = sm_machine_vsock(machine);
    bool log_ports = network->notice && config->log_ports;
    bool log_connections = network->notice && config->log_connections;
    int rc;

    network->found_rate = sm_rate_make(FOUND_A_SECOND, FOUND_BURST);
    rc = sm_ports_create(
        loop, vsock, log_connections ? on_connection : NULL, network, &network->ports, err);

    for (const char *const *port = config->publish; port && *port && !rc; port++)
        rc = sm_vm_network_publish(network, *port, err);
    for (size_t i = 0; i < image->exposed.count && config->publish_exposed && !rc; i++)
        rc = publish_exposed(network, image->exposed.items[i], err);
    if (!rc && !config->no_found_ports && network->mode != SM_NETWORK_NONE) {
        rc = sm_listeners_create(loop, vsock, network->ports, log_ports ? on_found : NULL, network,
            &network->listeners, err);
        if (!rc && network->n_known)
            sm_listeners_set(network->listeners, network->known, network->n_known);
    }
    if (!rc && config->socket)
        rc = sm_ports_front_door(network->ports, config->socket, err);
    return rc;
}

void sm_vm_network_watch(struct sm_vm_network *network)
{
    if (network->listeners)
        sm_listeners_watch(network->listeners);
}

void sm_vm_network_close(struct sm_vm_network *network)
{
    sm_listeners_destroy(network->listeners);
    sm_ports_destroy(network->ports);
    network->listeners = NULL;
    network->ports = NULL;
}
