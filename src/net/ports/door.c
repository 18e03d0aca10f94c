/* The front door of a VM: where its clients are connected to. See ports.h. */
#include "net/ports/impl.h"
#include "wire/wire.h"

/* The oldest of those that were asked for, else of those that were found; 0: there is none. */
static uint16_t first_port(const struct sm_ports *ports)
{
    uint16_t asked = 0, found = 0;

    for (const struct port *p = ports->list; p; p = p->next) {
        if (p->spec.protocol == SM_WIRE_PROXY_TCP)
            *(p->spec.found ? &found : &asked) = p->spec.guest_port;
    }
    return asked ? asked : found;
}

static enum sm_vsock_route route(
    void *arg, bool named, uint32_t port, struct sm_vsock_target *target)
{
    struct sm_ports *ports = arg;

    if (!named)
        port = first_port(ports);
    if (!named && !port)
        return SM_VSOCK_NOT_YET;
    if (!port || port > UINT16_MAX)
        return SM_VSOCK_NOWHERE;
    /* A client that named the port waits for an OK, which only the guest's end can give. */
    target->port = SM_WIRE_PROXY_PORT;
    target->first_len = SM_WIRE_PROXY_FIRST;
    sm_ports_first(
        (uint16_t)port, SM_WIRE_PROXY_TCP | (named ? SM_WIRE_PROXY_SAY_OK : 0), target->first);
    ports->counters.connections++;
    sm_ports_log(ports, NULL, (uint16_t)port, SM_WIRE_PROXY_TCP);
    return SM_VSOCK_THERE;
}

int sm_ports_front_door(struct sm_ports *ports, const char *path, sm_error *err)
{
    return sm_vsock_front_door(ports->vsock, path, route, ports, err);
}
