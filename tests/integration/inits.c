/* Runs an image's own command as a VM's process 1, on a terminal that is standard error, and beside
 * it each line of standard input as a shell command; "capture FILE" captures the VM. Behind what a
 * command prints comes "status N". After "stop" process 1 is told to: "ended N".
 * Argument: image. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <supermachine.h>

static sm_vm *vm;

static int fail(const sm_error *err)
{
    fprintf(stderr, "inits: %s\n", err->message);
    return 1;
}

static int end_of(sm_exec *exec, const char *word, sm_error *err)
{
    sm_exec_result result;
    int rc = sm_exec_wait(exec, -1, &result, err);
    sm_exec_close(exec);
    if (!rc)
        printf("%s %d\n", word, result.signal ? 128 + result.signal : result.exit_code);
    return rc;
}

static int answer(const char *line, sm_error *err)
{
    static const char capture[] = "capture ";
    if (strncmp(line, capture, sizeof(capture) - 1) == 0) {
        int rc = sm_vm_snapshot(vm, line + sizeof(capture) - 1, NULL, err);
        if (!rc)
            puts("status 0");
        return rc;
    }
    const char *const argv[] = {"sh", "-c", line, NULL};
    sm_exec *exec;
    int rc = sm_exec_start(
        vm, &(sm_exec_config){.argv = argv, .stdout_fd = 1, .stderr_fd = 1}, &exec, err);
    return rc ? rc : end_of(exec, "status", err);
}

int main(int argc, char **argv)
{
    static const sm_exec_config own = {.tty = true, .stdout_fd = 2};
    const sm_vm_config config = {.command = &own};
    sm_error err;
    sm_store *store;
    sm_image *image;
    sm_exec *first;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 2)
        return 2;
    if (sm_store_open(&store, NULL, &err) || sm_image_open(store, argv[1], NULL, &image, &err) ||
        sm_vm_start(image, &config, &vm, &err) || sm_vm_take_command(vm, &first, &err))
        return fail(&err);
    static char line[4096];
    while (fgets(line, sizeof(line), stdin) && strcmp(line, "stop\n") != 0) {
        line[strcspn(line, "\n")] = 0;
        if (answer(line, &err))
            return fail(&err);
    }
    if (sm_exec_signal(first, SM_SIGNAL_STOP, &err) || end_of(first, "ended", &err))
        return fail(&err);
    sm_vm_close(vm);
    sm_image_close(image);
    sm_store_close(store);
    return 0;
}
