/* Starting a command in a VM. See exec.h. */
#include "vm/exec.h"

#include "util/strv.h"
#include "vm/command.h"

int sm_vm_exec(sm_vm *vm, const sm_exec_config *config, sm_exec **exec, sm_error *err)
{
    const struct sm_oci_config *image = &vm->image->config;
    auto_strv argv = {0};
    auto_strv env = {0};
    struct sm_exec_request request = {0};
    int rc = 0;
    if (sm_command_is_default(config))
        request.attach.pid = sm_vm_take_service(vm);
    if (!request.attach.pid)
        rc = sm_command_describe(image, config, &argv, &env, &request.exec, err);
    struct sm_channel channel;
    struct sm_guest_wait w;
    sm_vm_begin_wait(vm, &w, 0);
    pthread_rwlock_rdlock(&vm->capturing);
    if (!rc)
        rc = sm_vm_channel(vm, &channel, &w.wait, err);
    if (!rc)
        rc = sm_exec_begin(&channel, &request, config, image->stop_signal, exec, err);
    if (!rc)
        sm_vm_add_command(vm, *exec, request.attach.pid != 0);
    else if (request.attach.pid)
        sm_vm_put_service(vm, request.attach.pid);
    pthread_rwlock_unlock(&vm->capturing);
    if (!rc)
        sm_engine_watch(vm->engine);
    return rc;
}

void sm_vm_end_exec(sm_exec *exec)
{
    if (!exec)
        return;
    if (exec->vm)
        sm_vm_drop_command(exec->vm, exec);
    sm_exec_end(exec);
}
