/* A snapshot's registry of what listens in its guest: made of what the agent says, and read to be
 * offered by a restore. */
#ifndef SM_VM_REGISTRY_H
#define SM_VM_REGISTRY_H

#include "net/ports/found.h"
#include "snapshot/snapshot.h"

/* Of what is offered to others; *entries is malloc'ed. */
int sm_registry_make(const struct sm_wire_sockets *sockets, const struct sm_card_addresses *card,
    struct sm_snapshot_listener **entries, uint32_t *n, sm_error *err);

/* The registry may be hostile; entries that are not of our making are left out. */
size_t sm_registry_read(
    const struct sm_snapshot *snapshot, struct sm_listener found[SM_LISTENERS_MAX]);

#endif
