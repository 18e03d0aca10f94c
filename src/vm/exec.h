/* Commands of a VM: which connection carries one, whether it is the service that runs already, and
 * which of them is the VM's own. What happens on the connection is vm/agent/exec.h's. */
#ifndef SM_VM_EXEC_H
#define SM_VM_EXEC_H

#include "vm/agent/exec.h"
#include "vm/vm.h"

/* As sm_exec_start of the public API. */
int sm_vm_exec(sm_vm *vm, const sm_exec_config *config, sm_exec **exec, sm_error *err);
/* As sm_exec_close. */
void sm_vm_end_exec(sm_exec *exec);

#endif
