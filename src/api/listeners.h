/* What listens in the guest, between the agent, a snapshot's registry, and the ports of the host. */
#ifndef SM_API_LISTENERS_H
#define SM_API_LISTENERS_H

#include "api/vm.h"
#include "net/ports/found.h"
#include "snapshot/snapshot.h"

/* Asks the agent and makes the registry; *entries is malloc'ed. */
int sm_vm_save_listeners(
    sm_vm *vm, struct sm_snapshot_listener **entries, uint32_t *n, sm_error *err);

/* Reads a registry, which may be hostile; entries that are not of our making are left out. */
size_t sm_vm_load_listeners(
    const struct sm_snapshot *snapshot, struct sm_listener found[SM_LISTENERS_MAX]);

#endif
