/* Programs of ours that are started. See spawn.h. */
#include "util/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"

#define STACK_BYTES (32u << 10) /* of each of the two */
#define NO_PROGRAM  127         /* exit status of a child that could not become the program */
/* What runs on the child's stack, of which a sanitizer knows nothing. */
#define ON_A_STACK_OF_ITS_OWN __attribute__((no_sanitize("address", "thread")))

/* What the child reads and writes: it has the caller's memory until it is another program. */
struct birth {
    const struct sm_spawn *spawn;
    int null; /* /dev/null, opened before */
    char *stacks;
    int pidfd; /* of the program */
    pid_t pid;
    int errnum;
};

/* Copies of what it is given go above all numbers that it is to have, so that none is overwritten
 * before it has been used; then each goes to its number. */
ON_A_STACK_OF_ITS_OWN static bool place(const struct sm_spawn *s, int null)
{
    int above = SM_SPAWN_FIRST + (int)s->n_fds, high[SM_SPAWN_MAX];
    int blank = fcntl(null, F_DUPFD_CLOEXEC, above);
    for (unsigned i = 0; i < s->n_fds; i++) {
        high[i] = s->fds[i] < 0 ? -1 : fcntl(s->fds[i], F_DUPFD_CLOEXEC, above);
        if (s->fds[i] >= 0 && high[i] < 0)
            return false;
    }
    if (blank < 0 || dup3(blank, 0, 0) < 0 || dup3(blank, 1, 0) < 0 || dup3(blank, 2, 0) < 0)
        return false;
    for (unsigned i = 0; i < s->n_fds; i++) {
        int number = SM_SPAWN_FIRST + (int)i;
        if (high[i] < 0)
            close(number);
        else if (dup3(high[i], number, 0) < 0)
            return false;
    }
    return syscall(SYS_close_range, above, ~0u, 0) == 0;
}

ON_A_STACK_OF_ITS_OWN static int child(void *arg)
{
    struct birth *b = arg;
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    if (place(b->spawn, b->null) && sigprocmask(SIG_SETMASK, &none, NULL) == 0)
        execve(b->spawn->program, (char *const *)(uintptr_t)b->spawn->argv, environ);
    b->errnum = errno;
    syscall(SYS_exit_group, NO_PROGRAM);
    return 0;
}

/* The one that ends at once; it has the caller's descriptors, for the pidfd to be among them. */
ON_A_STACK_OF_ITS_OWN static int parent(void *arg)
{
    struct birth *b = arg;
    b->pid = clone(child, b->stacks + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD,
        b, &b->pidfd);
    if (b->pid < 0)
        b->errnum = errno;
    syscall(SYS_exit_group, 0);
    return 0;
}

/* The caller's thread stands still until the program runs. Signals are blocked meanwhile: a handler
 * of the caller's must not run in a child that has his memory. */
static void give_birth(struct birth *b)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = clone(parent, b->stacks + 2 * STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_FILES, b);
    if (pid < 0)
        b->errnum = errno;
    while (pid >= 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        continue;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int sm_spawn(const struct sm_spawn *spawn, int *pidfd, int *pid, sm_error *err)
{
    auto_fd null = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct birth b = {.spawn = spawn, .null = null, .pidfd = -1};
    b.stacks = mmap(NULL, (size_t)2 * STACK_BYTES, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (null < 0 || b.stacks == MAP_FAILED)
        return sm_error_errno(err, errno, "cannot start %s", spawn->program);
    give_birth(&b);
    munmap(b.stacks, (size_t)2 * STACK_BYTES);
    if (b.errnum) {
        if (b.pid > 0)
            sm_spawn_wait(b.pidfd, -1);
        sm_close(b.pidfd);
        return sm_error_errno(err, b.errnum, "cannot start %s", spawn->program);
    }
    *pidfd = b.pidfd;
    *pid = b.pid;
    return 0;
}

bool sm_spawn_wait(int pidfd, int timeout_ms)
{
    int64_t deadline = sm_deadline(timeout_ms);
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    int n;
    while ((n = poll(&ended, 1, sm_deadline_left(deadline))) < 0 && errno == EINTR)
        continue;
    siginfo_t info; /* taken away, should the caller be the one whom orphans are given to */
    if (n > 0)
        waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | __WALL);
    return n > 0;
}

void sm_spawn_kill(int pidfd)
{
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    sm_spawn_wait(pidfd, -1);
}
