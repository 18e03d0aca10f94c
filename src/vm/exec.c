/* Starting a command in a VM. See vm/exec.h. */
#include "vm/exec.h"

#include "util/error.h"
#include "vm/command.h"
#include "vm/ports.h"

static int describe(sm_vm *vm, const sm_exec_config *config, struct sm_command *command,
    struct sm_exec_request *request, sm_error *err)
{
    *request = (struct sm_exec_request){0};
    if (sm_command_is_default(config) || (vm->service_terminal && sm_command_is_terminal(config)))
        request->attach.pid = sm_vm_take_service(vm);
    if (request->attach.pid)
        return 0;
    int rc = sm_command_describe(&vm->image->config, config, command, err);
    request->exec = command->wire;
    return rc;
}

/* What the command that is attached to was started with, unless the caller says something else. */
static int stop_signal_of(const sm_vm *vm, const sm_exec_config *config, bool attached,
    bool systemd, int *signal, sm_error *err)
{
    if (attached && vm->service_stop_signal && !config->stop_signal) {
        *signal = vm->service_stop_signal;
        return 0;
    }
    return sm_command_stop_signal(&vm->image->config, config, systemd, signal, err);
}

/* It had another size where it was captured. */
static void fit_terminal(sm_exec *exec, const sm_exec_config *config)
{
    if (config->tty && config->rows && config->columns)
        (void)sm_exec_put_size(exec, config->rows, config->columns, NULL);
}

static int start(sm_vm *vm, const sm_exec_config *config, sm_exec **exec, sm_error *err)
{
    auto_command command = {0};
    struct sm_exec_request request = {0};
    int stop_signal;
    int rc = describe(vm, config, &command, &request, err);
    if (!rc)
        rc = stop_signal_of(vm, config, request.attach.pid != 0, false, &stop_signal, err);
    struct sm_channel channel;
    pthread_rwlock_rdlock(&vm->capturing);
    if (!rc)
        rc = sm_vm_channel(vm, &channel, err);
    if (!rc)
        rc = sm_exec_begin(&channel, &request, config, stop_signal, exec, err);
    if (!rc && request.attach.pid)
        fit_terminal(*exec, config);
    if (!rc)
        sm_vm_add_command(vm, *exec, request.attach.pid != 0);
    else if (request.attach.pid)
        sm_vm_put_service(vm, request.attach.pid);
    pthread_rwlock_unlock(&vm->capturing);
    if (!rc)
        sm_vm_watch_ports(vm);
    return rc;
}

int sm_vm_exec(sm_vm *vm, const sm_exec_config *config, sm_exec **exec, sm_error *err)
{
    if (config->init || config->systemd == SM_SYSTEMD_ALWAYS)
        return sm_error_set(err, SM_EINVAL,
            "only a VM's own command can have an init or be prepared for as systemd: others join it");
    return start(vm, config, exec, err);
}

/* In a snapshot whose command runs on, others join that: it is process 1, and what was mounted for
 * it is there. What would be half done is refused. */
static int check_beside(const sm_vm *vm, const sm_exec_config *config, sm_error *err)
{
    const char *what = config->init                           ? "have an init"
                       : config->systemd == SM_SYSTEMD_ALWAYS ? "be prepared for as systemd"
                       : config->privileged                   ? "be privileged"
                                                              : NULL;
    if (!what || !vm->is_taken)
        return 0;
    return sm_error_set(err, SM_EINVAL,
        "a command beside the one that runs in the snapshot cannot %s; it joins that one's "
        "container",
        what);
}

int sm_vm_describe_own(sm_vm *vm, const sm_exec_config *config, struct sm_command *command,
    struct sm_exec_request *request, sm_error *err)
{
    bool systemd = false;
    int rc = describe(vm, config, command, request, err);
    if (!rc && !request->attach.pid) {
        rc = check_beside(vm, config, err);
        if (!rc)
            rc = sm_command_be_first(config, command, &systemd, err);
        request->exec = command->wire;
        request->exec.flags |= sm_exec_stream_flags(config);
    }
    return rc ? rc
              : stop_signal_of(
                    vm, config, request->attach.pid != 0, systemd, &vm->command_stop_signal, err);
}

/* No capture comes between the command that is not taken yet and the one that is the VM's. */
int sm_vm_take_own(sm_vm *vm, sm_exec **exec, sm_error *err)
{
    const struct sm_exec_request sent = {.sent = true};
    pthread_rwlock_rdlock(&vm->capturing);
    pthread_mutex_lock(&vm->lock);
    const sm_exec_config *config = vm->command_config;
    struct sm_channel channel = vm->commanded;
    vm->command_config = NULL;
    vm->commanded = (struct sm_channel){.fd = -1};
    pthread_mutex_unlock(&vm->lock);
    int rc = config ? sm_exec_begin(&channel, &sent, config, vm->command_stop_signal, exec, err)
                    : sm_error_set(err, SM_EINVAL,
                          "the VM has no command of its own, or it was taken already");
    if (!rc && vm->command_service)
        fit_terminal(*exec, config);
    if (!rc)
        sm_vm_add_command(vm, *exec, vm->command_service != 0);
    else if (config && vm->command_service)
        sm_vm_put_service(vm, vm->command_service);
    pthread_rwlock_unlock(&vm->capturing);
    if (!rc)
        sm_vm_watch_ports(vm);
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
