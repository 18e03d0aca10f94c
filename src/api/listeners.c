/* What listens in the guest. See listeners.h. */
#include "api/listeners.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "api/exec.h"
#include "util/error.h"
#include "vmm/guest_wait.h"

static void make_registry(
    struct sm_snapshot_listener *entries, const struct sm_listener *found, size_t n)
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

int sm_vm_save_listeners(
    sm_vm *vm, struct sm_snapshot_listener **entries, uint32_t *n, sm_error *err)
{
    struct sm_listener found[SM_LISTENERS_MAX];
    struct sm_wire_sockets sockets;
    struct sm_channel channel;
    struct sm_guest_wait w;
    size_t count = 0;
    sm_guest_wait_begin(&w, vm->machine, SM_VM_AGENT_TIMEOUT_MS);
    int rc = sm_vm_channel(vm, &channel, &w.wait, err);
    if (rc)
        return rc;
    rc = sm_exec_send(&channel, SM_WIRE_LISTENERS, NULL, &w.wait, err);
    if (!rc)
        rc = sm_channel_expect(&channel, SM_WIRE_SOCKETS, &sockets, &w.wait, err);
    if (!rc)
        count = sm_listeners_pick(&sockets, found);
    sm_channel_close(&channel);
    if (rc)
        return sm_error_prefix(err, rc, "cannot tell what listens in the guest");
    struct sm_snapshot_listener *list = calloc(count + 1, sizeof(*list));
    if (!list)
        return sm_error_set(err, SM_ENOMEM, "no memory for the list of listeners");
    make_registry(list, found, count);
    *entries = list;
    *n = (uint32_t)count;
    return 0;
}

size_t sm_vm_load_listeners(
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
