/*
 * The loop of a VM's client: one thread on which all happens that the client does by itself for the
 * VM. That is its ports, what is found to listen in it, and its network's process; the machine has
 * a loop of its own, and may be in another process.
 *
 * The VM owns it. It is made when the first of these needs it, and joined when the VM is freed: a
 * VM that is reached by nobody and reaches nobody has none.
 */
#ifndef SM_VM_CLIENT_LOOP_H
#define SM_VM_CLIENT_LOOP_H

#include "vm/vm.h"

/* Any thread. */
int sm_vm_loop(sm_vm *vm, struct sm_loop **loop, sm_error *err);
/* What lives on it must have been destroyed. Harmless when there is none. */
void sm_vm_end_loop(sm_vm *vm);

#endif
