/*
 * One round of what bench/count counts. It runs in the nested machine whose clock counts
 * instructions: a nanosecond is an instruction, and only one thread of the whole machine runs at a
 * time. Every figure begins where a user's does, at the fork of a process. Prints a line "MEASURE
 * WORK WAIT KVM_RUNS" for each, "-" for what is not known.
 *
 * Work is what the machine did, all of it, wait is how long it had nothing to do: an idler, a
 * process that runs only when no other can, counts the wait by its CPU time. A wait that ends at a
 * tick would otherwise take in what is done before it, and KVM_CREATE_VM has one, a grace period
 * that cgroup_attach_task_all waits for in the name of a kernel thread. With an idler, nothing
 * polls for the end of a halt either, and the clock never follows the host's.
 *
 *     boot      a process with the library, to the agent of a VM that it has booted
 *     restore   a process with the library, to the first answer of the agent of a VM that it has
 *               restored; after that what the guest takes for single requests, a snapshot, the end
 *     run       the command line, to the first byte of the command's output; its end
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
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

/* ---- the clock ----------------------------------------------------------------------------- */

struct mark {
    uint64_t ns, idle;
};

static pid_t idler;
static clockid_t idle_clock;

static pid_t start_idler(void)
{
    pid_t pid = fork();
    if (pid < 0)
        die("fork", strerror(errno));
    if (pid == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) ||
            sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}))
            die("SCHED_IDLE", strerror(errno));
        for (;;)
            __asm__ volatile(".rept 256; nop; .endr"); /* QEMU emulates many in no time */
    }
    return pid;
}

static void find_idler(pid_t pid)
{
    idler = pid;
    int rc = clock_getcpuclockid(pid, &idle_clock);
    if (rc)
        die("the idler's clock", strerror(rc));
}

static uint64_t read_clock(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t))
        die("clock_gettime", strerror(errno));
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct mark now(void)
{
    return (struct mark){.ns = read_clock(CLOCK_MONOTONIC), .idle = read_clock(idle_clock)};
}

/* As many instructions as SM_COUNT_PLANTED ("MEASURE=N MEASURE=N ...") asks for. */
static void burn(const char *measure)
{
    size_t len = strlen(measure);
    const char *planted = getenv("SM_COUNT_PLANTED");
    for (const char *p = planted; p; p = strchr(p, ' ')) {
        p += *p == ' ';
        uint64_t turns = 0;
        if (strncmp(p, measure, len) == 0 && p[len] == '=')
            turns = strtoull(p + len + 1, NULL, 10) / 2;
        if (turns)
            __asm__ volatile("1: dec %0; jnz 1b" : "+r"(turns) : : "cc");
    }
}

/* Where a measure begins. */
static struct mark begin(const char *measure)
{
    struct mark m = now();
    burn(measure);
    return m;
}

/* The same for a process: each time elsewhere between two ticks (4 ms), so that how long one waits
 * for ticks varies. */
static struct mark begin_process(const char *measure)
{
    uint32_t r = 0;
    (void)!getrandom(&r, sizeof(r), 0);
    usleep(r % 4000);
    return begin(measure);
}

#define UNKNOWN UINT64_MAX

static void print_line(const char *measure, uint64_t work, uint64_t wait, uint64_t runs)
{
    const uint64_t values[] = {work, wait, runs};
    fputs(measure, stdout);
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        if (values[i] == UNKNOWN)
            fputs(" -", stdout);
        else
            printf(" %llu", (unsigned long long)values[i]);
    }
    putchar('\n');
}

static void tell(const char *measure, struct mark from, struct mark to, uint64_t runs)
{
    uint64_t wait = to.idle - from.idle;
    print_line(measure, to.ns - from.ns - wait, wait, runs);
}

/* By the library's own clock, which does not know what of it was a wait. */
static void tell_time(const char *measure, uint64_t ns)
{
    print_line(measure, ns, UNKNOWN, UNKNOWN);
}

/* ---- in a process of its own: what the library does ---------------------------------------- */

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

/* When the process was forked: its parent says so, by the same clocks. */
static void boot(struct mark forked)
{
    struct vm v = {0};
    sm_vm_timing t;
    start(&v, true);
    struct mark ready = now();
    tell("boot", forked, ready, exits(&v));
    sm_vm_get_timing(v.vm, &t);
    tell_time("boot.guest", (t.agent_start_us - t.kernel_entry_us) * 1000);
    sm_vm_close(v.vm);
}

static void run_true(const struct vm *v)
{
    sm_error err;
    sm_exec *exec = NULL;
    sm_exec_result result;
    const char *argv[] = {"true", NULL};
    if (sm_exec_start(
            v->vm, &(sm_exec_config){.argv = argv, .stdout_fd = 1, .stderr_fd = 2}, &exec, &err))
        die("true", err.message);
    if (sm_exec_wait(exec, -1, &result, &err) || result.exit_code)
        die("true", err.message);
    sm_exec_close(exec);
}

static int by_work(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    uint64_t p = x->ns - x->idle, q = y->ns - y->idle;
    return (p > q) - (p < q);
}

#define EXECS 15

/* `true`, n times one after the other: the median, as a tick comes in one of three, and now and
 * then what the kernel had put off. */
static void tell_execs(const char *measure, const struct vm *v, size_t n)
{
    struct mark took[EXECS] = {{0}};
    uint64_t runs = exits(v);
    for (size_t i = 0; i < n; i++) {
        struct mark asked = begin(measure);
        run_true(v);
        took[i] = now();
        took[i].ns -= asked.ns;
        took[i].idle -= asked.idle;
    }
    qsort(took, n, sizeof(*took), by_work);
    tell(measure, (struct mark){0}, took[n / 2], (exits(v) - runs) / n);
}

/* The command line's snapshot does not fit: it is of another program. */
static void bake(void)
{
    struct vm v = {0};
    start(&v, false);
    sm_vm_close(v.vm);
}

static void restore(struct mark forked)
{
    struct vm v = {0};
    sm_error err;
    sm_vm_timing t;
    sm_snapshot_stats stats;
    char path[4096];
    start(&v, false);
    struct mark ready = now();
    tell("restore", forked, ready, exits(&v));
    sm_vm_get_timing(v.vm, &t);
    if (!t.restored || t.baked_us)
        die(image_name, "was not restored: bake it before");
    tell_time("restore.guest", (t.ready_us - t.kernel_entry_us) * 1000);

    tell_execs("first-exec", &v, 1); /* runs what was parked at the bake */
    tell_execs("exec", &v, EXECS);

    snprintf(path, sizeof(path), "%s/snapshot", dir);
    if (sm_vm_snapshot(v.vm, path, &stats, &err))
        die("snapshot", err.message);
    unlink(path);
    tell_time("snapshot.pause", stats.pause_us * 1000);

    /* until the process is gone: the parent subtracts */
    struct mark closing = begin("end");
    printf(CLOSING "%llu %llu\n", (unsigned long long)closing.ns, (unsigned long long)closing.idle);
    fflush(stdout);
    sm_vm_close(v.vm);
    sm_image_close(v.image);
    sm_store_close(v.store);
}

/* ---- the parent ---------------------------------------------------------------------------- */

struct process {
    struct mark forked, first_byte, gone;
    char text[8192];
};

/* Runs argv to its end, and reads what it writes to its standard output, or error. */
static void run_process(struct process *p, const char *const argv[], int stream)
{
    int fds[2];
    posix_spawn_file_actions_t actions;
    if (pipe2(fds, O_CLOEXEC) || posix_spawn_file_actions_init(&actions) ||
        posix_spawn_file_actions_adddup2(&actions, fds[1], stream))
        die("pipe", strerror(errno));
    pid_t pid;
    int rc = posix_spawn(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    if (rc)
        die(argv[0], strerror(rc));
    posix_spawn_file_actions_destroy(&actions);
    close(fds[1]);
    size_t len = 0;
    ssize_t n;
    while ((n = read(fds[0], p->text + len, sizeof(p->text) - 1 - len)) > 0) {
        if (!len)
            p->first_byte = now();
        len += (size_t)n;
    }
    p->text[len] = '\0';
    close(fds[0]);
    int status;
    if (waitpid(pid, &status, 0) != pid || status)
        die(argv[0], "failed, see above");
    p->gone = now();
}

static struct mark read_mark(const char *text)
{
    char *end;
    uint64_t ns = strtoull(text, &end, 10);
    return (struct mark){.ns = ns, .idle = strtoull(end, NULL, 10)};
}

static void library(const char *what)
{
    struct process p = {.forked = begin_process(what)};
    char forked[64]; /* the child needs the time of its own fork */
    snprintf(forked, sizeof(forked), "%llu %llu %d", (unsigned long long)p.forked.ns,
        (unsigned long long)p.forked.idle, (int)idler);
    const char *argv[] = {self, image_name, program, dir, what, forked, NULL};
    run_process(&p, argv, STDOUT_FILENO);
    char *closing = strstr(p.text, CLOSING);
    if (closing) {
        tell("end", read_mark(closing + strlen(CLOSING)), p.gone, UNKNOWN);
        *closing = '\0';
    }
    fputs(p.text, stdout);
}

static void command_line(void)
{
    struct process p = {0};
    const char *timing[] = {program, "run", "-q", "--timing", image_name, "true", NULL};
    const char *echo[] = {program, "run", "-q", image_name, "echo", "answer", NULL};
    run_process(&p, timing, STDERR_FILENO);
    const char *told = strstr(p.text, EXITS);
    uint64_t runs = told ? strtoull(told + strlen(EXITS), NULL, 10) : 0;
    p.forked = begin_process("run");
    run_process(&p, echo, STDOUT_FILENO);
    if (strcmp(p.text, "answer\n") != 0)
        die("the command's output", p.text);
    tell("run", p.forked, p.first_byte, runs);
    tell("run.end", p.first_byte, p.gone, UNKNOWN);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: bench-count IMAGE SUPERMACHINE DIR [bake]\n");
        return 2;
    }
    self = argv[0], image_name = argv[1], program = argv[2], dir = argv[3];
    if (argc == 5) {
        bake();
    } else if (argc == 6) {
        find_idler((pid_t)strtol(strrchr(argv[5], ' '), NULL, 10));
        if (strcmp(argv[4], "boot") == 0)
            boot(read_mark(argv[5]));
        else
            restore(read_mark(argv[5]));
    } else {
        find_idler(start_idler());
        library("boot");
        library("restore");
        command_line();
        kill(idler, SIGKILL);
    }
    return 0;
}
