/*
 * One round of what bench/count counts. It runs in the nested machine whose clock counts instructions: a nanosecond is
 * an instruction, and only one thread of the whole machine runs at a time. Every figure begins where a user's does, at the
 * fork of a process. Prints a line "MEASURE NANOSECONDS KVM_RUNS" for each, "-" where KVM_RUNs are not known.
 *
 *     boot      a process with the library, to the agent of a VM that it has booted
 *     restore   a process with the library, to the first answer of the agent of a VM that it has restored; after
 *               that what the guest takes for single requests, a snapshot, the end
 *     run       the command line, to the first byte of the command's output; its end
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <supermachine.h>

#define CLOSING "closing "
#define EXITS   "guest exits " /* of run --timing */

static const char *self, *image_name, *program, *dir;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench-count: %s: %s\n", what, why);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void tell(const char *measure, uint64_t ns, uint64_t runs)
{
    printf("%s %llu %llu\n", measure, (unsigned long long)ns, (unsigned long long)runs);
}

static void tell_time(const char *measure, uint64_t ns)
{
    printf("%s %llu -\n", measure, (unsigned long long)ns);
}

/* ---- in a process of its own: what the library does ---------------------------------------------- */

struct vm {
    sm_store *store;
    sm_image *image;
    sm_vm *vm;
};

static uint64_t exits(const struct vm *v)
{
    sm_vm_counters c;
    sm_vm_get_counters(v->vm, &c);
    return c.exits;
}

static void start(struct vm *v, bool cold)
{
    sm_error err;
    if (sm_store_open(&v->store, NULL, &err) ||
        sm_image_open(v->store, image_name, NULL, &v->image, &err) ||
        sm_vm_start(v->image, &(sm_vm_config){.cold = cold}, &v->vm, &err))
        die(image_name, err.message);
}

/* When the process was forked: its parent says so, by the same clock. */
static void boot(uint64_t forked)
{
    struct vm v = {0};
    sm_vm_timing t;
    start(&v, true);
    uint64_t ready = now_ns();
    tell("boot", ready - forked, exits(&v));
    sm_vm_get_timing(v.vm, &t);
    tell_time("boot.guest", (t.agent_start_us - t.kernel_entry_us) * 1000);
    sm_vm_close(v.vm);
}

/* Runs `true` and returns when it was started, by way of *started, and has ended. */
static uint64_t run_true(const struct vm *v, uint64_t *started)
{
    sm_error err;
    sm_exec *exec = NULL;
    sm_exec_result result;
    const char *argv[] = {"true", NULL};
    if (sm_exec_start(
            v->vm, &(sm_exec_config){.argv = argv, .stdout_fd = 1, .stderr_fd = 2}, &exec, &err))
        die("true", err.message);
    *started = now_ns();
    if (sm_exec_wait(exec, -1, &result, &err) || result.exit_code)
        die("true", err.message);
    sm_exec_close(exec);
    return now_ns();
}

/* The command line's snapshot does not fit: it is of another program. */
static void bake(void)
{
    struct vm v = {0};
    start(&v, false);
    sm_vm_close(v.vm);
}

static void restore(uint64_t forked)
{
    struct vm v = {0};
    sm_error err;
    sm_vm_timing t;
    sm_snapshot_stats stats;
    uint64_t started, ended, runs;
    char path[4096];
    start(&v, false);
    uint64_t ready = now_ns();
    tell("restore", ready - forked, exits(&v));
    sm_vm_get_timing(v.vm, &t);
    if (!t.restored || t.baked_us)
        die(image_name, "was not restored: bake it before");
    tell_time("restore.guest", (t.agent_start_us - t.kernel_entry_us) * 1000);
    tell_time("restore.RESTORE", (t.ready_us - t.agent_start_us) * 1000);

    for (int i = 0; i < 2; i++) { /* the first one runs what was parked at the bake */
        runs = exits(&v);
        uint64_t begin = now_ns();
        ended = run_true(&v, &started);
        tell(i ? "exec" : "first-exec", ended - begin, exits(&v) - runs);
        tell_time(i ? "exec.start" : "first-exec.start", started - begin);
        tell_time(i ? "exec.end" : "first-exec.end", ended - started);
    }

    snprintf(path, sizeof(path), "%s/snapshot", dir);
    if (sm_vm_snapshot(v.vm, path, &stats, &err))
        die("snapshot", err.message);
    unlink(path);
    tell_time("snapshot.pause", stats.pause_us * 1000);

    /* until the process is gone: the parent subtracts */
    printf(CLOSING "%llu\n", (unsigned long long)now_ns());
    fflush(stdout);
    sm_vm_close(v.vm);
    sm_image_close(v.image);
    sm_store_close(v.store);
}

/* ---- the parent ---------------------------------------------------------------------------------- */

struct process {
    uint64_t forked, first_byte, gone;
    char text[8192];
};

/* Runs argv to its end, and reads what it writes to its standard output, or error. */
static void run_process(struct process *p, const char *const argv[], int stream)
{
    int fds[2], status, rc;
    size_t len = 0;
    ssize_t n;
    pid_t pid;
    posix_spawn_file_actions_t actions;
    if (pipe2(fds, O_CLOEXEC) || posix_spawn_file_actions_init(&actions) ||
        posix_spawn_file_actions_adddup2(&actions, fds[1], stream))
        die("pipe", strerror(errno));
    p->forked = now_ns();
    rc = posix_spawn(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    if (rc)
        die(argv[0], strerror(rc));
    posix_spawn_file_actions_destroy(&actions);
    close(fds[1]);
    while ((n = read(fds[0], p->text + len, sizeof(p->text) - 1 - len)) > 0) {
        if (!len)
            p->first_byte = now_ns();
        len += (size_t)n;
    }
    p->text[len] = '\0';
    close(fds[0]);
    if (waitpid(pid, &status, 0) != pid || status)
        die(argv[0], "failed, see above");
    p->gone = now_ns();
}

static void library(const char *what)
{
    struct process p;
    char stamp[32]; /* the child needs the time of its own fork */
    const char *argv[] = {self, image_name, program, dir, what, stamp, NULL};
    snprintf(stamp, sizeof(stamp), "%llu", (unsigned long long)now_ns());
    run_process(&p, argv, STDOUT_FILENO);
    char *closing = strstr(p.text, CLOSING);
    if (closing) {
        tell_time("end", p.gone - strtoull(closing + strlen(CLOSING), NULL, 10));
        *closing = '\0';
    }
    fputs(p.text, stdout);
}

static void command_line(void)
{
    struct process p;
    const char *timing[] = {program, "run", "-q", "--timing", image_name, "true", NULL};
    const char *echo[] = {program, "run", "-q", image_name, "echo", "answer", NULL};
    run_process(&p, timing, STDERR_FILENO);
    const char *told = strstr(p.text, EXITS);
    uint64_t runs = told ? strtoull(told + strlen(EXITS), NULL, 10) : 0;
    run_process(&p, echo, STDOUT_FILENO);
    if (strcmp(p.text, "answer\n") != 0)
        die("the command's output", p.text);
    tell("run", p.first_byte - p.forked, runs);
    tell_time("run.end", p.gone - p.first_byte);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: bench-count IMAGE SUPERMACHINE DIR [bake]\n");
        return 2;
    }
    self = argv[0], image_name = argv[1], program = argv[2], dir = argv[3];
    if (argc == 4) {
        library("boot");
        library("restore");
        command_line();
    } else if (argc == 5) {
        bake();
    } else if (strcmp(argv[4], "boot") == 0) {
        boot(strtoull(argv[5], NULL, 10));
    } else {
        restore(strtoull(argv[5], NULL, 10));
    }
    return 0;
}
