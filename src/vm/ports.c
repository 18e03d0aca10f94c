/* How a VM is reached. See ports.h. */
#include "vm/ports.h"

#include "net/ports/found.h"
#include "net/ports/ports.h"
#include "util/error.h"

int sm_vm_add_port(sm_vm *vm, const char *port, sm_error *err)
{
    struct sm_port_spec spec;
    int rc = sm_port_spec_parse(port, &spec, err);
    if (!rc && vm->network.mode == SM_NETWORK_NONE)
        return sm_error_set(
            err, SM_EINVAL, "port %u cannot be published: the VM has no network", spec.guest_port);
    return rc ? rc : sm_engine_publish(vm->engine, &spec, err);
}

/* Unless it was published already. */
static int publish_exposed(sm_vm *vm, const char *port, sm_error *err)
{
    struct sm_port_spec specs[SM_PORTS_MAX], spec;
    size_t n = sm_engine_ports(vm->engine, specs, SM_PORTS_MAX);
    int rc = sm_port_spec_parse(port, &spec, err);
    for (size_t i = 0; i < n && !rc; i++) {
        if (specs[i].guest_port == spec.guest_port && specs[i].protocol == spec.protocol)
            return 0;
    }
    if (!rc)
        rc = sm_engine_publish(vm->engine, &spec, err);
    return rc ? sm_error_prefix(err, rc, "the image's exposed ports") : 0;
}

static int publish_all_exposed(sm_vm *vm, sm_error *err)
{
    auto_strv ports = {0};
    int rc = sm_oci_exposed_ports(&vm->image->config, &ports, err);
    for (size_t i = 0; i < ports.count && !rc; i++)
        rc = publish_exposed(vm, ports.items[i], err);
    return rc;
}

int sm_vm_open_ports(sm_vm *vm, const struct sm_vm_network_config *config, sm_error *err)
{
    const struct sm_vm_network *network = &vm->network;
    int rc = sm_engine_open_ports(vm->engine, err);
    for (const char *const *port = config->publish; port && *port && !rc; port++)
        rc = sm_vm_add_port(vm, *port, err);
    if (!rc && config->publish_exposed)
        rc = publish_all_exposed(vm, err);
    if (!rc && !config->no_found_ports && network->mode != SM_NETWORK_NONE)
        rc = sm_engine_find_ports(vm->engine, network->known, network->n_known, err);
    if (!rc && config->door)
        rc = sm_engine_front_door(vm->engine, config->door, err);
    if (!rc && (vm->service_pid || network->n_known))
        sm_engine_watch(vm->engine);
    return rc;
}
