/* What all ways into the guest share. See entry.h. */
#include "net/ports/entry.h"

#include <netinet/in.h>
#include <string.h>

#include "util/bytes.h"
#include "util/clock.h"
#include "wire/wire.h"

#define TICK_MS 500

struct sm_vsock_target sm_ports_target(uint16_t guest_port, uint16_t how)
{
    _Static_assert(SM_WIRE_PROXY_FIRST <= SM_VSOCK_FIRST, "what the proxy is told fits");
    struct sm_vsock_target target = {.port = SM_WIRE_PROXY_PORT,
        .first_len = SM_WIRE_PROXY_FIRST,
        .stranger = how & SM_WIRE_PROXY_OUTSIDE};
    sm_store_le16(target.first, guest_port);
    sm_store_le16(target.first + 2, how);
    return target;
}

bool sm_ports_may_enter(struct sm_ports *ports, const struct port *port, bool stranger)
{
    if (!stranger || !port->spec.found)
        return true;
    ports->counters.strangers++;
    return false;
}

bool sm_ports_is_ready(const struct sm_ports *ports)
{
    return ports->link.is_ready(ports->link.arg);
}

bool sm_ports_bridge(struct sm_ports *ports, int fd, const struct sm_vsock_target *target)
{
    return ports->link.bridge(ports->link.arg, fd, target);
}

void sm_ports_tick_later(struct sm_ports *ports)
{
    sm_loop_timer_arm(ports->timer, TICK_MS);
}

/* ---- addresses ------------------------------------------------------------------------------- */

socklen_t sm_ports_sockaddr(const struct sm_port_spec *spec, struct sockaddr_storage *addr)
{
    memset(addr, 0, sizeof(*addr));
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)addr;
    if (sm_ip_is_v4(&spec->ip)) {
        v4->sin_family = AF_INET;
        v4->sin_port = htobe16(spec->host_port);
        memcpy(&v4->sin_addr, spec->ip.b + 12, 4);
        return sizeof(*v4);
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)addr;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htobe16(spec->host_port);
    memcpy(&v6->sin6_addr, spec->ip.b, 16);
    return sizeof(*v6);
}

uint16_t sm_ports_port_of(const struct sockaddr_storage *addr)
{
    if (addr->ss_family == AF_INET)
        return be16toh(((const struct sockaddr_in *)(const void *)addr)->sin_port);
    return be16toh(((const struct sockaddr_in6 *)(const void *)addr)->sin6_port);
}

static struct sm_ip ip_of(const struct sockaddr_storage *addr)
{
    if (addr->ss_family == AF_INET)
        return sm_ip_from_v4(
            be32toh(((const struct sockaddr_in *)(const void *)addr)->sin_addr.s_addr));
    struct sm_ip ip;
    memcpy(ip.b, &((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr, sizeof(ip.b));
    return ip;
}

void sm_ports_log(struct sm_ports *ports, const struct sockaddr_storage *from, uint16_t guest_port,
    uint8_t protocol)
{
    struct sm_port_connection c = {.guest_port = guest_port, .protocol = protocol};
    if (!ports->log || !sm_rate_take(&ports->log_rate, (uint64_t)sm_now_ms(), &c.suppressed))
        return;
    struct sm_ip source;
    if (from) {
        source = ip_of(from);
        c.source = &source;
        c.source_port = sm_ports_port_of(from);
    }
    ports->log(ports->log_arg, &c);
}
