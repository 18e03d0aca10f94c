/* What the programs that drive VMs through the library share. */
#ifndef SM_TESTS_VM_SHELL_H
#define SM_TESTS_VM_SHELL_H

#include <unistd.h>

#include <supermachine.h>

/* Runs a shell script in the VM: its output goes to text, with a NUL, as far as there is room; its
 * standard error to stderr_fd. Returns its exit code; negative: it was not run, as *err says. */
static inline int vm_shell(
    sm_vm *vm, const char *script, int stderr_fd, char *text, size_t size, sm_error *err)
{
    sm_exec *exec;
    sm_exec_result result;
    const char *argv[] = {"sh", "-c", script, NULL};
    const sm_exec_config config = {.argv = argv, .stdout_fd = SM_FD_PIPE, .stderr_fd = stderr_fd};
    int rc = sm_exec_start(vm, &config, &exec, err);
    if (rc)
        return rc;
    int fd = sm_exec_fd(exec, 1);
    size_t n = 0;
    ssize_t got;
    while (n < size - 1 && (got = read(fd, text + n, size - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = '\0';
    close(fd);
    rc = sm_exec_wait(exec, -1, &result, err);
    sm_exec_close(exec);
    return rc ? rc : result.exit_code;
}

#endif
