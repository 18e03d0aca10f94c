/* A VM's own command (sm_vm_config.command) as a program has it by the library: it is taken once,
 * by sm_vm_take_command, which says what has become of it. Ends with 0 and "ok" when all of it was
 * right. Arguments: image, name for a snapshot. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <supermachine.h>

#define MINUTES(n) ((n)*60 * 1000)

static sm_image *image;

static void must(int ok, const char *what, const sm_error *err)
{
    if (!ok) {
        fprintf(stderr, "own-command: %s: %s\n", what, err ? err->message : "wrong");
        exit(1);
    }
}

static void must_say(int rc, enum sm_code code, const char *words, const sm_error *err)
{
    if (rc == -(int)code && strstr(err->message, words))
        return;
    fprintf(stderr, "own-command: %d (%s), not %d (%s)\n", rc, rc ? err->message : "", -(int)code,
        words);
    exit(1);
}

static sm_vm *start(const char *const *argv)
{
    sm_error err;
    sm_vm *vm;
    /* Borrowed until it is taken. */
    static sm_exec_config command;
    command = (sm_exec_config){
        .argv = argv, .stdin_fd = SM_FD_PIPE, .stdout_fd = SM_FD_PIPE, .stderr_fd = 2};
    must(!sm_vm_start(image, &(sm_vm_config){.command = &command}, &vm, &err), argv[0], &err);
    return vm;
}

static sm_exec *take(sm_vm *vm)
{
    sm_error err;
    sm_exec *exec;
    must(!sm_vm_take_command(vm, &exec, &err), "take", &err);
    return exec;
}

/* A line that begins so. */
static void must_read(int fd, const char *line)
{
    char text[256] = "";
    size_t n = 0;
    while (n < sizeof(text) - 1 && !strchr(text, '\n') && read(fd, text + n, 1) == 1)
        n++;
    if (strncmp(text, line, strlen(line)) != 0) {
        fprintf(stderr, "own-command: '%s', not '%s'\n", text, line);
        exit(1);
    }
}

static void must_end(sm_exec *exec, int code, int signal)
{
    sm_error err;
    sm_exec_result result;
    must(!sm_exec_wait(exec, MINUTES(10), &result, &err), "wait", &err);
    if (result.exit_code != code || result.signal != signal) {
        fprintf(stderr, "own-command: ended with %d, signal %d, not %d, %d\n", result.exit_code,
            result.signal, code, signal);
        exit(1);
    }
    sm_exec_close(exec);
}

static const char *const loop[] = {
    "sh", "-c", "echo is $$; while read line; do echo $line; done; exit 7", NULL};

/* Process 1; whoever joins it ends with it; the VM is there afterwards and has no command. */
static void is_taken_once_and_ends(void)
{
    static const char *const sleeps[] = {"sleep", "1000", NULL}, *const yes[] = {"true", NULL};
    sm_error err;
    sm_exec *other;
    sm_vm *vm = start(loop);
    sm_exec *own = take(vm);
    int in = sm_exec_fd(own, 0), out = sm_exec_fd(own, 1);
    must_read(out, "is 1\n");
    must_say(sm_vm_take_command(vm, &other, &err), SM_EINVAL, "taken already", &err);
    must(!sm_exec_start(vm, &(sm_exec_config){.argv = sleeps}, &other, &err), "another", &err);
    close(in);
    must_end(own, 7, 0);
    close(out);
    must_end(other, -1, 9);
    must_say(sm_vm_take_command(vm, &own, &err), SM_EINVAL, "taken already", &err);
    must(!sm_exec_start(vm, &(sm_exec_config){.argv = yes}, &other, &err), "afterwards", &err);
    must_end(other, 0, 0);
    sm_vm_close(vm);
}

/* The start of the VM has gone well, its command's has not. Others may run. */
static void could_not_be_started(void)
{
    static const char *const none[] = {"/no/such", NULL}, *const data[] = {"/etc/passwd", NULL},
                             *const yes[] = {"true", NULL};
    sm_error err;
    sm_exec *exec;
    sm_vm *vm = start(none);
    must_say(sm_vm_take_command(vm, &exec, &err), SM_ENOTFOUND, "/no/such", &err);
    must_say(sm_vm_take_command(vm, &exec, &err), SM_EINVAL, "taken already", &err);
    must(!sm_exec_start(vm, &(sm_exec_config){.argv = yes}, &exec, &err), "afterwards", &err);
    must_end(exec, 0, 0);
    sm_vm_close(vm);

    vm = start(data);
    must_say(sm_vm_take_command(vm, &exec, &err), SM_ENOEXEC, "/etc/passwd", &err);
    sm_vm_close(vm);
}

/* What can be told without a guest is told before there is one, also that it has none to take. */
static void is_refused_or_none(void)
{
    static const char *const yes[] = {"true", NULL};
    static const sm_exec_config bad = {.argv = yes, .cwd = "relative"};
    sm_error err;
    sm_exec *exec;
    sm_vm *vm;
    must_say(sm_vm_start(image, &(sm_vm_config){.command = &bad}, &vm, &err), SM_EINVAL,
        "not an absolute path", &err);
    must(!sm_vm_start(image, NULL, &vm, &err), "start", &err);
    must_say(sm_vm_take_command(vm, &exec, &err), SM_EINVAL, "no command of its own", &err);
    sm_vm_close(vm);
}

/* A restore goes on with it; who does not ask for that takes nothing, and joins. */
static void is_captured(const char *path)
{
    static const char *const parent[] = {"sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; echo", NULL};
    static const sm_exec_config streams = {.stdout_fd = SM_FD_PIPE},
                                joins = {.argv = parent, .stdout_fd = SM_FD_PIPE};
    sm_error err;
    sm_vm *vm = start(loop);
    must_say(sm_vm_snapshot(vm, path, NULL, &err), SM_EINVAL, "not taken yet", &err);
    sm_exec *exec = take(vm);
    int in = sm_exec_fd(exec, 0), out = sm_exec_fd(exec, 1);
    must_read(out, "is 1\n");
    must(!sm_vm_snapshot(vm, path, NULL, &err), "snapshot", &err);
    must(write(in, "goes on\n", 8) == 8, "write", NULL);
    must_read(out, "goes on\n");
    close(in);
    close(out);
    sm_exec_close(exec);
    sm_vm_close(vm);

    sm_vm_config config = {.snapshot = path, .service = true, .command = &streams};
    must(!sm_vm_start(image, &config, &vm, &err), "restore", &err);
    exec = take(vm);
    must_say(sm_vm_take_command(vm, &(sm_exec *){NULL}, &err), SM_EINVAL, "taken already", &err);
    must(!sm_exec_signal(exec, 9, &err), "signal", &err);
    must_end(exec, -1, 9);
    sm_vm_close(vm);

    config = (sm_vm_config){.snapshot = path, .command = &joins};
    must(!sm_vm_start(image, &config, &vm, &err), "restore", &err);
    exec = take(vm);
    out = sm_exec_fd(exec, 1);
    must_read(out, "sh -c echo is $$; while read line");
    close(out);
    sm_exec_close(exec);
    sm_vm_close(vm);
}

int main(int argc, char **argv)
{
    sm_error err;
    sm_store *store;
    if (argc != 3)
        return 2;
    must(!sm_store_open(&store, NULL, &err), "store", &err);
    must(!sm_image_open(store, argv[1], NULL, &image, &err), "image", &err);
    is_taken_once_and_ends();
    could_not_be_started();
    is_refused_or_none();
    sm_vm_close(start(loop)); /* never taken */
    is_captured(argv[2]);
    sm_image_close(image);
    sm_store_close(store);
    puts("ok");
    return 0;
}
