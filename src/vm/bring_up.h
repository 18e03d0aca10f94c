/* How a VM comes up: booted, or from a snapshot file; the agent is ready afterwards. */
#ifndef SM_VM_BRING_UP_H
#define SM_VM_BRING_UP_H

#include "vm/vm.h"

int sm_vm_boot(sm_vm *vm, const struct sm_vm_plan *plan, sm_error *err);
int sm_vm_restore(sm_vm *vm, const struct sm_vm_plan *plan, const char *path, sm_error *err);

#endif
