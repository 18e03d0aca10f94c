/* The registry of listeners. See registry.h. */
#include "vm/registry.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "util/error.h"

static void put_all(struct sm_snapshot_listener *entries, const struct sm_listener *found, size_t n)
{
    for (size_t i = 0; i < n; i++)
        entries[i] = (struct sm_snapshot_listener){
            .cid = SM_VSOCK_GUEST_CID,
            .peer_port = SM_WIRE_PROXY_PORT,
            .vm_port = found[i].port,
            .family = found[i].family == 6 ? AF_INET6 : AF_INET,
            .socktype = found[i].protocol == SM_WIRE_PROXY_UDP ? SOCK_DGRAM : SOCK_STREAM,
        };
}

int sm_registry_make(const struct sm_wire_sockets *sockets, const struct sm_card_addresses *card,
    struct sm_snapshot_listener **entries, uint32_t *n, sm_error *err)
{
    struct sm_listener found[SM_LISTENERS_MAX];
    size_t count = sm_listeners_pick(sockets, card, found);
    struct sm_snapshot_listener *list = calloc(count + 1, sizeof(*list));
    if (!list)
        return sm_error_set(err, SM_ENOMEM, "no memory for the list of listeners");
    put_all(list, found, count);
    *entries = list;
    *n = (uint32_t)count;
    return 0;
}

size_t sm_registry_read(
    const struct sm_snapshot *snapshot, struct sm_listener found[SM_LISTENERS_MAX])
{
    size_t n = 0;
    for (uint32_t i = 0; i < snapshot->n_listeners && n < SM_LISTENERS_MAX; i++) {
        const struct sm_snapshot_listener *l = &snapshot->listeners[i];
        if (l->cid != SM_VSOCK_GUEST_CID || l->peer_port != SM_WIRE_PROXY_PORT || l->vm_port == 0 ||
            l->vm_port > UINT16_MAX || (l->socktype != SOCK_STREAM && l->socktype != SOCK_DGRAM))
            continue;
        found[n++] = (struct sm_listener){
            .port = (uint16_t)l->vm_port,
            .protocol = l->socktype == SOCK_DGRAM ? SM_WIRE_PROXY_UDP : SM_WIRE_PROXY_TCP,
            .family = l->family == AF_INET6 ? 6 : 4,
        };
    }
    return n;
}
