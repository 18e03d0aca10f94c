/* Commands of a VM: which connection carries one, whether it is the service that runs already, and
 * which of them is the VM's own. What happens on the connection is vm/agent/exec.h's. */
#ifndef SM_VM_EXEC_H
#define SM_VM_EXEC_H

#include "vm/agent/exec.h"
#include "vm/command.h"
#include "vm/vm.h"

/* As sm_exec_start of the public API. */
int sm_vm_exec(sm_vm *vm, const sm_exec_config *config, sm_exec **exec, sm_error *err);

/* The VM's own command, as it is asked for when the VM comes up: its process 1, or the service that
 * runs already. The request points into config and *command, which is the caller's even after a
 * failure. */
int sm_vm_describe_own(sm_vm *vm, const sm_exec_config *config, struct sm_command *command,
    struct sm_exec_request *request, sm_error *err);
/* As sm_vm_take_command of the public API. */
int sm_vm_take_own(sm_vm *vm, sm_exec **exec, sm_error *err);
/* As sm_exec_close. */
void sm_vm_end_exec(sm_exec *exec);

#endif
