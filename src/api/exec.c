/* sm_exec: the public face of a command (src/vm). */
#include "vm/exec.h"

#include "vm/command.h"

static const sm_exec_config default_config;

int sm_exec_check(const sm_image *image, const sm_exec_config *config, sm_error *err)
{
    return sm_command_check(&image->config, config ? config : &default_config, err);
}

bool sm_exec_is_default(const sm_exec_config *config)
{
    return sm_command_is_default(config ? config : &default_config);
}

int sm_exec_start(sm_vm *vm, const sm_exec_config *config, sm_exec **exec, sm_error *err)
{
    return sm_vm_exec(vm, config ? config : &default_config, exec, err);
}

int sm_vm_take_command(sm_vm *vm, sm_exec **exec, sm_error *err)
{
    return sm_vm_take_own(vm, exec, err);
}

int sm_exec_fd(sm_exec *exec, int stream)
{
    return sm_exec_take_fd(exec, stream);
}

int sm_exec_signal(sm_exec *exec, int signal, sm_error *err)
{
    return sm_exec_put_signal(exec, signal, err);
}

int sm_exec_resize(sm_exec *exec, uint16_t rows, uint16_t columns, sm_error *err)
{
    return sm_exec_put_size(exec, rows, columns, err);
}

int sm_exec_wait(sm_exec *exec, int timeout_ms, sm_exec_result *result, sm_error *err)
{
    struct sm_wait wait = sm_wait_ms(timeout_ms);
    return sm_exec_await(exec, &wait, result, err);
}

void sm_exec_close(sm_exec *exec)
{
    sm_vm_end_exec(exec);
}
