/* How a VM is reached: ports that are published, what is found to listen in it, its front door. */
#ifndef SM_VM_PORTS_H
#define SM_VM_PORTS_H

#include "vm/vm.h"

/* The machine runs and its agent is ready: opens what the configuration asks for, and what is known
 * to listen. */
int sm_vm_open_ports(sm_vm *vm, const struct sm_vm_network_config *config, sm_error *err);
/* As sm_vm_publish of the public API. */
int sm_vm_add_port(sm_vm *vm, const char *port, sm_error *err);

#endif
