/* What happens at a VM's network, as lines for a log. */
#ifndef SM_VM_NOTICES_H
#define SM_VM_NOTICES_H

#include "net/egress.h"
#include "net/ports/ports.h"
#include "vm/config.h"

/* All need events->notice. */
void sm_notice_denial(const struct sm_vm_events *events, const struct sm_denial *denial);
void sm_notice_connection(
    const struct sm_vm_events *events, const struct sm_port_connection *connection);
/* suppressed: how many were not told of since the last one. */
void sm_notice_found(
    const struct sm_vm_events *events, const struct sm_port_spec *spec, uint64_t suppressed);

#endif
