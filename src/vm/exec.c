/* Starting a command in a VM. See vm/exec.h. */
#include "vm/exec.h"

#include <signal.h>

#include "util/error.h"
#include "vm/command.h"

#define SYSTEMD_HALT 37 /* SIGRTMIN+3, as systemd counts them */

static int describe(sm_vm *vm, const sm_exec_config *config, uint32_t flags,
    struct sm_command *command, struct sm_exec_request *request, sm_error *err)
{
    *request = (struct sm_exec_request){0};
    if (sm_command_is_default(config))
        request->attach.pid = sm_vm_take_service(vm);
    if (request->attach.pid)
        return 0;
    int rc = sm_command_describe(&vm->image->config, config, command, err);
    request->exec = command->wire;
    request->exec.flags |= flags;
    return rc;
}

/* A VM's own command may be systemd. Its variable is engines' own word for it. */
static int describe_systemd(struct sm_strv *env, struct sm_wire_exec *exec, sm_error *err)
{
    exec->flags |= SM_WIRE_EXEC_SYSTEMD;
    if (!sm_strv_set_env(env, "container=oci"))
        return sm_error_set(err, SM_ENOMEM, "no memory for the command's environment");
    exec->env.strv = (const char *const *)env->items;
    return 0;
}

static int start(
    sm_vm *vm, const sm_exec_config *config, uint32_t flags, sm_exec **exec, sm_error *err)
{
    auto_command command = {0};
    struct sm_exec_request request = {0};
    int stop_signal;
    int rc = sm_command_stop_signal(&vm->image->config, config, &stop_signal, err);
    if (!rc)
        rc = describe(vm, config, flags, &command, &request, err);
    struct sm_channel channel;
    struct sm_guest_wait w;
    sm_vm_begin_wait(vm, &w, 0);
    pthread_rwlock_rdlock(&vm->capturing);
    if (!rc)
        rc = sm_vm_channel(vm, &channel, &w.wait, err);
    if (!rc)
        rc = sm_exec_begin(&channel, &request, config, stop_signal, exec, err);
    if (!rc)
        sm_vm_add_command(vm, *exec, request.attach.pid != 0);
    else if (request.attach.pid)
        sm_vm_put_service(vm, request.attach.pid);
    pthread_rwlock_unlock(&vm->capturing);
    if (!rc)
        sm_engine_watch(vm->engine);
    return rc;
}

int sm_vm_exec(sm_vm *vm, const sm_exec_config *config, sm_exec **exec, sm_error *err)
{
    return start(vm, config, 0, exec, err);
}

int sm_vm_exec_first(sm_vm *vm, const sm_exec_config *config, sm_exec **exec, sm_error *err)
{
    return start(vm, config, SM_WIRE_EXEC_FIRST, exec, err);
}

int sm_vm_describe_own(sm_vm *vm, const sm_exec_config *config, struct sm_command *command,
    struct sm_exec_request *request, sm_error *err)
{
    int rc = describe(vm, config, SM_WIRE_EXEC_FIRST, command, request, err);
    bool attach = request->attach.pid != 0;
    vm->command_is_systemd = !rc && !attach && sm_command_is_systemd(&command->argv, config);
    if (vm->command_is_systemd)
        rc = describe_systemd(&command->env, &request->exec, err);
    request->exec.flags |= sm_exec_stream_flags(config);
    return rc;
}

int sm_vm_take_own(sm_vm *vm, sm_exec **exec, sm_error *err)
{
    const struct sm_exec_request sent = {.sent = true};
    pthread_mutex_lock(&vm->lock);
    const sm_exec_config *config = vm->command_config;
    struct sm_channel channel = vm->commanded;
    vm->command_config = NULL;
    vm->commanded = (struct sm_channel){.fd = -1};
    pthread_mutex_unlock(&vm->lock);
    if (!config)
        return sm_error_set(
            err, SM_EINVAL, "the VM has no command of its own, or it was taken already");
    int stop_signal;
    int rc = sm_command_stop_signal(&vm->image->config, config, &stop_signal, err);
    if (vm->command_is_systemd && !config->stop_signal && stop_signal == SIGTERM)
        stop_signal = SYSTEMD_HALT;
    pthread_rwlock_rdlock(&vm->capturing);
    if (!rc)
        rc = sm_exec_begin(&channel, &sent, config, stop_signal, exec, err);
    else
        sm_channel_close(&channel);
    if (!rc)
        sm_vm_add_command(vm, *exec, vm->command_is_service);
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
