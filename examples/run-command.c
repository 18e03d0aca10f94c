/*
 * Runs a command in a microVM and prints what it says:
 *
 *     cc run-command.c $(pkg-config --cflags --libs supermachine) -o run-command
 *     ./run-command oci:/srv/images/demo uname -a
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <supermachine.h>

/* Prints the lines of a stream with our own words in front of them. */
static void print_lines(int fd)
{
    char line[4096];
    FILE *stream = fdopen(fd, "r");
    while (stream && fgets(line, sizeof(line), stream))
        printf("the VM says: %s", line);
    if (stream)
        fclose(stream);
}

static int run(sm_vm *vm, const char *const *argv, sm_exec_result *result, sm_error *err)
{
    sm_exec *exec;
    const sm_exec_config config = {
        .argv = argv,
        .stdout_fd = SM_FD_PIPE,
        .stderr_fd = STDERR_FILENO,
    };
    int rc = sm_exec_start(vm, &config, &exec, err);
    if (rc)
        return rc;
    print_lines(sm_exec_fd(exec, 1));
    rc = sm_exec_wait(exec, -1, result, err);
    sm_exec_close(exec);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: run-command IMAGE COMMAND [ARG...]\n");
        return 2;
    }
    sm_error err;
    sm_store *store = NULL;
    sm_image *image = NULL;
    sm_vm *vm = NULL;
    sm_exec_result result;
    int status = 1;
    if (sm_store_open(&store, NULL, &err) || sm_image_open(store, argv[1], NULL, &image, &err) ||
        sm_vm_start(image, NULL, &vm, &err) ||
        run(vm, (const char *const *)argv + 2, &result, &err)) {
        fprintf(stderr, "run-command: %s\n", err.message);
    } else {
        printf("exit code %d, signal %d, %.1f ms\n", result.exit_code, result.signal,
            (double)result.wall_us / 1000);
        status = result.exit_code;
    }
    sm_vm_close(vm);
    sm_image_close(image);
    sm_store_close(store);
    return status;
}
