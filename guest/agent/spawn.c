/*
 * Starts a process of the container without copying the agent (container.h): it shares our memory
 * until it executes, and we wait for that and do nothing else. So it may read the request and leave
 * word of a failure in struct spawn, and must touch nothing else. With a small init these are two
 * processes, and the command does nothing before the init has executed.
 */
#include "spawn.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clone.h"
#include "container.h"
#include "directory.h"
#include "number.h"
#include "process.h"

static char child_path[2 * (SM_WIRE_MAX_PATH + 1)];

static int fail(struct spawn *s, enum sm_wire_error_kind kind, const char *what)
{
    s->kind = kind;
    s->errnum = errno;
    s->what = what;
    return 1;
}

static int fail_as(struct spawn *s, const struct process_failure *failure)
{
    s->which = failure->which;
    return fail(s, failure->which ? SM_WIRE_E_BAD_VALUE : SM_WIRE_E_INTERNAL, failure->what);
}

/* fds[0..2] to 0..2. With a terminal fds[0] serves for all three. Ours are all above 2, and 0 of
 * the agent is /dev/null: so 0 is set last. */
static int set_streams(const struct spawn *s)
{
    for (int i = 2; i >= 0; i--) {
        int from = s->tty ? s->fds[0] : s->fds[i];
        if (from >= 0 ? dup2(from, i) < 0 : (i != 0 && dup2(0, i) < 0))
            return -1;
    }
    return 0;
}

/* A working directory that is missing is made, and is the user's, as with podman; what is made on
 * the way to it is root's. */
static int change_directory(const char *path, const struct user *u)
{
    if (path[0] == 0)
        path = "/";
    if (path[0] != '/') {
        errno = EINVAL;
        return -1;
    }
    if (chdir(path) == 0)
        return 0;
    if (errno != ENOENT || directory_make(path) != 0)
        return -1;
    bool roots = u->uid == 0 && u->gid == 0;
    return roots || chown(path, u->uid, u->gid) == 0 ? chdir(path) : -1;
}

/* As `execute` looks for it, but for a name that nobody has; then our own program. */
static void try_out(const struct spawn *s)
{
    for (const char *p = s->path; p;) {
        const char *end = strchr(p, ':');
        size_t len = end ? (size_t)(end - p) : strlen(p);
        if (len + sizeof("/nobody") <= sizeof(child_path)) {
            memcpy(child_path, p, len);
            memcpy(child_path + len, "/nobody", sizeof("/nobody"));
            (void)faccessat(AT_FDCWD, child_path, X_OK, 0);
        }
        p = end ? end + 1 : NULL;
    }
    container_exec_init(CONTAINER_NO_INIT);
}

/* Returns only on failure: errno is that of the most telling attempt. */
static void execute(const struct spawn *s, const char **found)
{
    const char *name = s->argv[0];
    if (strchr(name, '/')) {
        execve(name, s->argv, s->envp);
        *found = name;
        return;
    }
    size_t name_len = strlen(name);
    int told = ENOENT;
    for (const char *p = s->path; p;) {
        const char *end = strchr(p, ':');
        size_t len = end ? (size_t)(end - p) : strlen(p);
        if (len + name_len + 2 <= sizeof(child_path)) {
            memcpy(child_path, p, len);
            if (len > 0)
                child_path[len++] = '/';
            memcpy(child_path + len, name, name_len + 1);
            execve(child_path, s->argv, s->envp);
            bool there = errno != ENOENT && errno != ENOTDIR;
            if (!there && access(child_path, F_OK) == 0) {
                *found = child_path; /* its interpreter is what is missing */
                errno = ENOENT;
                return;
            }
            if (there) {
                told = errno;
                if (told != EACCES) {
                    *found = child_path;
                    break;
                }
            }
        }
        p = end ? end + 1 : NULL;
    }
    errno = told;
}

/* The kernel has one word for all that it takes for no program, and says of a directory what it
 * says of a file without the right mode. */
static int fail_to_execute(struct spawn *s, const char *found)
{
    int why = errno;
    struct stat st;
    bool directory = why == EACCES && found && stat(found, &st) == 0 && S_ISDIR(st.st_mode);
    errno = directory ? EISDIR : why;
    if (why != ENOEXEC)
        return fail(s, SM_WIRE_E_CANNOT_EXEC, "cannot execute ");
    unsigned char head[EI_NIDENT];
    int fd = open(found, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof(head));
    errno = ENOEXEC;
    if (n == 0)
        return fail(s, SM_WIRE_E_CANNOT_EXEC, "an empty file is no program: ");
    if (n > 0 && (n < EI_NIDENT || memcmp(head, ELFMAG, SELFMAG) != 0))
        return fail(s, SM_WIRE_E_CANNOT_EXEC, "no program, and no script that begins with #!: ");
    if (n > 0 && head[EI_CLASS] == ELFCLASS32)
        return fail(s, SM_WIRE_E_CANNOT_EXEC, "the guest kernel runs no 32-bit programs: ");
    return fail(s, SM_WIRE_E_CANNOT_EXEC, "damaged, or of another CPU: ");
}

/* What a process starts with, once the agent itself has raised its limit. */
static struct rlimit child_files;

void spawn_raise_files(void)
{
    struct rlimit files;
    if (child_files.rlim_max != 0 || prlimit(0, RLIMIT_NOFILE, NULL, &files) != 0)
        return;
    child_files = files;
    files.rlim_cur = files.rlim_max;
    prlimit(0, RLIMIT_NOFILE, &files, NULL);
}

/* The terminal of the container's own command is its console, which there is for no other. */
static int be_console(void)
{
    struct stat terminal;
    char path[] = "/dev/pts/0000000000", *at = path + sizeof(path) - 1;
    int file = open("/dev/console", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    if (file < 0 || close(file) != 0 || fstat(0, &terminal) != 0)
        return -1;
    unsigned number = minor(terminal.st_rdev);
    at = number_before(at, number);
    memmove(path + strlen("/dev/pts/"), at, strlen(at) + 1);
    return mount(path, "/dev/console", NULL, MS_BIND, NULL);
}

static int child(void *arg)
{
    struct spawn *s = arg;
    sigset_t none;
    sigemptyset(&none);
    setsid();
    if (child_files.rlim_max != 0)
        prlimit(0, RLIMIT_NOFILE, &child_files, NULL);
    if (sigprocmask(SIG_SETMASK, &none, NULL) != 0 || (!s->inherits && set_streams(s) != 0))
        return fail(s, SM_WIRE_E_INTERNAL, "cannot set up streams of ");
    if (s->tty && ioctl(0, TIOCSCTTY, 0) != 0)
        return fail(s, SM_WIRE_E_INTERNAL, "no controlling terminal for ");
    if (s->tty && s->first && be_console() != 0)
        return fail(s, SM_WIRE_E_INTERNAL, "no console for ");
    struct process_failure failure;
    if (process_prepare(s->process, s->first, s->systemd, &failure) != 0)
        return fail_as(s, &failure);
    if (change_directory(s->cwd, s->user) != 0)
        return fail(s, SM_WIRE_E_BAD_CWD, "cannot change to working directory ");
    if (process_seal(s->process, &failure) != 0)
        return fail_as(s, &failure);
    if (process_become(s->process, s->user, s->bounded, &failure) != 0)
        return fail_as(s, &failure);
    const char *found = NULL;
    if (s->trial)
        try_out(s);
    else
        execute(s, &found);
    if (errno == ENOENT && found && access(found, F_OK) == 0) {
        errno = ENOENT;
        return fail(s, SM_WIRE_E_NOT_FOUND, "interpreter or dynamic loader is missing for ");
    }
    if (errno == ENOENT || errno == ENOTDIR)
        return fail(s, SM_WIRE_E_NOT_FOUND, "command not found: ");
    return fail_to_execute(s, found);
}

/* ---- with a small init --------------------------------------------------------------------- */

static _Alignas(16) uint8_t under_stack[32 * 1024];
static int gate[2]; /* open until process 1 executes, which then cannot fail */

static int under_init(void *arg)
{
    char nothing;
    close(gate[1]);
    while (read(gate[0], &nothing, 1) < 0 && errno == EINTR)
        ;
    return child(arg);
}

/* Process 1: makes the command, which waits until we are the init. */
static int as_init(void *arg)
{
    struct spawn *s = arg;
    const struct clone_child command = {
        .flags = CLONE_CHILD_CLEARTID,
        .stack = under_stack,
        .stack_size = sizeof(under_stack),
        .cgroup = -1,
        .running = &s->running,
        .fn = under_init,
        .arg = s,
    };
    setsid();
    signal(SIGCHLD, SIG_DFL); /* its end waits for the init, however quick it is */
    if (set_streams(s) != 0 || pipe2(gate, O_CLOEXEC) != 0)
        return fail(s, SM_WIRE_E_INTERNAL, "cannot set up an init for ");
    s->running = 1;
    s->inherits = true;
    pid_t pid = clone_child(&command);
    if (pid > 0)
        container_exec_init(pid);
    fail(s, SM_WIRE_E_INTERNAL, "cannot start an init for ");
    s->running = 0;
    if (pid > 0) { /* it looks into our caller's memory, who goes on when we end */
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    return 1;
}

/* ---- start -------------------------------------------------------------------------------- */

/* `first`: it shall be process 1 if nobody is. */
static pid_t try_to_spawn(struct spawn *s, bool first)
{
    s->kind = 0;
    s->step = NULL;
    s->which = NULL;
    s->running = 0;
    s->inherits = false;
    s->first = first && !container_is_taken();
    s->systemd = s->systemd && s->first;
    s->bounded = s->first && !process_exceeds(s->process);
    if (!s->first)
        return container_join(child, s, s->process, &s->step);
    return container_first(s->init ? as_init : child, s, s->process, &s->step);
}

pid_t spawn(struct spawn *s)
{
    bool first = s->first, systemd = s->systemd;
    pid_t pid = try_to_spawn(s, first);
    int errnum = errno;
    if (pid < 0 && errnum == ENOMEM && container_has_ended()) {
        s->systemd = systemd;
        pid = try_to_spawn(s, first);
        errnum = errno;
    }
    if (pid < 0) {
        errno = errnum;
        fail(s, SM_WIRE_E_INTERNAL, "cannot start a process for ");
        (void)container_await(
            &s->running, &(const char *){NULL}); /* an init's, which ends with it */
        return -1;
    }
    s->step = NULL; /* the container has done its part */
    errno = container_await(&s->running, &s->step);
    if (errno != 0)
        fail(s, SM_WIRE_E_INTERNAL, "cannot start a process for ");
    if (s->first && s->init && s->kind == 0)
        container_keep_init();
    /* A child that failed is reaped like any other: nobody knows its pid. */
    return s->kind == 0 ? pid : -1;
}
