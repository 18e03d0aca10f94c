/* The container's namespaces and its process 1: see container.h. */
#include "container.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bounds.h"
#include "clone.h"
#include "descriptor.h"
#include "init.h"
#include "loop.h"
#include "mask.h"
#include "number.h"
#include "process.h"
#include "spawn.h"
#include "user.h"

#define CGROUPS "/sys/fs/cgroup"
#define GROUP   CGROUPS "/container"

/* That long the end of a process 1 may take from when it has let go of our memory. */
#define END_MS  5000
#define LOOK_MS 5

/* And the start of any other one, by far: the host waits longer. */
#define START_MS 30000

#define PROC_FLAGS (MS_NOSUID | MS_NODEV | MS_NOEXEC)

enum { NOBODY, PARKED, TAKEN }; /* process 1 */
enum { STARTING = 1, WAITING }; /* what that does before it has executed */

static int own_proc = -1, own_pids = -1, own_mounts = -1, group = -1, init_program = -1;
static bool group_is_used; /* somebody of the user's is or was in it */
static bool others_ran;    /* of the user's, before what is being started */

static struct {
    int state;
    bool kept; /* parked, but others run: the kernel is not to kill it for want of memory */
    pid_t pid;
    int pidfd;

    /* What both write, the agent and the process that is parked. */
    int go;      /* futex: it shall call fn */
    int running; /* futex: STARTING, WAITING; the kernel's 0: it has executed, or ended */
    int (*fn)(void *arg);
    void *arg;
    bool failed; /* fn returned; or it could not be parked: */
    int errnum;
    const char *what;
} first = {.pidfd = -1};

static const char stopped[] =
    "the container, where something is frozen or stopped, does not let it execute";

/* Of process 1 until it executes; of any other one, which the agent waits for. */
static _Alignas(16) uint8_t first_stack[32 * 1024], stack[64 * 1024];

/* ---- waiting ------------------------------------------------------------------------------ */

static void wake(int *word, int value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void wait_while(int *word, int value)
{
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value)
        syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

/* ---- process 1, until it is called --------------------------------------------------------- */

/* What this namespace is to have its own of, over the agent's. */
static int mount_own(const char *type, const char *target)
{
    umount2(target, MNT_DETACH);
    return mount(type, target, type, PROC_FLAGS, NULL);
}

/* `asked`: of the command that it is for; NULL: it is not known yet. */
static const char *settle_in(const struct sm_wire_process *asked)
{
    if (!(asked && process_exceeds(asked)) && process_bound() != 0)
        return "cannot drop capabilities";
    /* It was born in the cgroup that becomes the root of what it sees. */
    if (syscall(SYS_unshare, CLONE_NEWCGROUP) != 0)
        return "cannot make a cgroup namespace";
    if (mount_own("proc", "/proc") != 0)
        return "cannot mount the container's /proc";
    if (mount_own("cgroup2", CGROUPS) != 0)
        return "cannot mount the container's cgroups";
    if (mount_own("mqueue", "/dev/mqueue") != 0 && errno != ENODEV)
        return "cannot mount the container's message queues";
    if (!(asked && (asked->flags & SM_WIRE_PROCESS_PRIVILEGED)) && mask_paths() != 0)
        return "cannot hide parts of /proc and /sys";
    return NULL;
}

/* The agent opened what the function needs after this process was made: that is why they share
 * descriptors, up to here. */
static int park(void *asked)
{
    /* Orphans of who joins need no waiting for; what it executes waits for its own again. */
    static const struct sigaction unwaited = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    sigaction(SIGCHLD, &unwaited, NULL);
    prctl(PR_SET_NAME, INIT_NAME);
    const char *what = settle_in(asked);
    if (what) {
        first.what = what;
        first.errnum = errno;
        first.failed = true;
    }
    wake(&first.running, WAITING);
    if (what)
        return 1;
    wait_while(&first.go, 0);
    if (syscall(SYS_unshare, CLONE_FILES) == 0)
        first.fn(first.arg);
    first.errnum = errno;
    first.failed = true;
    return 1;
}

/* ---- making it ---------------------------------------------------------------------------- */

/* Its process 1, in namespaces of its own. */
static int make_first(const struct sm_wire_process *asked, const char **what)
{
    const struct clone_child child = {
        .flags = CLONE_FILES | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_PIDFD |
                 CLONE_CHILD_CLEARTID,
        .stack = first_stack,
        .stack_size = sizeof(first_stack),
        .cgroup = group,
        .pidfd = &first.pidfd,
        .running = &first.running,
        .fn = park,
        .arg = (void *)(uintptr_t)asked,
    };
    first.go = 0;
    first.running = STARTING;
    first.failed = first.kept = false;
    *what = "cannot make the container's first process";
    first.pid = clone_child(&child);
    if (first.pid < 0)
        return errno;
    wait_while(&first.running, STARTING);
    if (first.failed)
        *what = first.what;
    return first.failed ? first.errnum : first.running == WAITING ? 0 : ECHILD;
}

/* The agent's children are born in the container from now on, and its paths are the container's. It
 * is in the other namespaces, too: a child of its own has nothing to join, and the end of process 1
 * is not their end, which takes grace periods. */
static int enter(const char **what)
{
    *what = "cannot enter the container's mount namespace";
    if (setns(first.pidfd, CLONE_NEWNS) != 0)
        return errno;
    *what = "cannot enter the container";
    return setns(first.pidfd, CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWCGROUP) == 0 ? 0 : errno;
}

/* It shares our memory no more. */
static void end_first(void)
{
    syscall(SYS_pidfd_send_signal, first.pidfd, SIGKILL, NULL, 0);
    clone_await(&first.running, CLONE_FOREVER);
}

static int make(const struct sm_wire_process *asked, const char **what)
{
    int e = make_first(asked, what);
    if (e == 0)
        e = enter(what);
    first.state = e == 0 ? PARKED : NOBODY;
    if (e != 0 && first.pid > 0)
        end_first(); /* it is not to stand on the stack of the next one */
    return e;
}

static int open_own(const char *path, int *fd)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? -1 : 0;
}

int container_open(const char **what)
{
    *what = "cannot make the container's cgroup";
    if (mkdir(GROUP, 0755) != 0 && errno != EEXIST)
        return errno;
    if (open_own(GROUP, &group) != 0)
        return errno;
    int e = bounds_set(CGROUPS "/cgroup.subtree_control", group, what);
    if (e != 0)
        return e;
    *what = "cannot open what the agent needs outside of the container";
    /* The kernel's threads have our root: nobody who shares it may enter a mount namespace. */
    if (unshare(CLONE_FS) != 0 || open_own("/proc", &own_proc) != 0 ||
        open_own("/proc/self/ns/pid", &own_pids) != 0 ||
        open_own("/proc/self/ns/mnt", &own_mounts) != 0 ||
        open_own("/proc/self/exe", &init_program) != 0 || process_open() != 0 ||
        prctl(PR_SET_DUMPABLE, 0) != 0)
        return errno;
    return make(NULL, what);
}

/* The kernel lets process 1 end when all others in its namespace have, and those that are ours have
 * been waited for. */
static void await_end(void)
{
    struct pollfd end = {.fd = first.pidfd, .events = POLLIN};
    for (int ms = 0; ms < END_MS && poll(&end, 1, LOOK_MS) == 0; ms += LOOK_MS)
        loop_children();
}

/* From outside, where all of it began. (We stay in the last one's IPC and cgroup namespaces, which
 * nothing is made of: process 1 is born in others, or makes them.) */
static int make_anew(const struct sm_wire_process *asked, const char **what)
{
    if (first.pidfd >= 0) {
        await_end(); /* it has left its group when it is to be waited for */
        close(first.pidfd);
    }
    first.pidfd = -1;
    *what = "cannot leave the container that has ended";
    if (setns(own_pids, CLONE_NEWPID) != 0 || setns(own_mounts, CLONE_NEWNS) != 0)
        return errno;
    int e = group_is_used ? bounds_reset(group, what) : 0;
    group_is_used = e != 0;
    return e == 0 ? make(asked, what) : e;
}

/* Somebody has killed it while it was parked. */
static void look_for_first(void)
{
    if (first.state == PARKED && __atomic_load_n(&first.running, __ATOMIC_ACQUIRE) == 0)
        first.state = NOBODY;
}

int container_renew(const char **what)
{
    look_for_first();
    return first.state != NOBODY ? 0 : make_anew(NULL, what);
}

/* What nearly every start looks up. Looked up before a capture it is there in each restore, and so
 * is who root is. */
static const char *const looked_up[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin",
    "/usr/bin", "/sbin", "/bin", "/etc/passwd", "/etc/group", "/lib64", "/proc/self"};

int container_prepare(const char **what)
{
    int e = container_renew(what);
    for (size_t i = 0; e == 0 && i < sizeof(looked_up) / sizeof(looked_up[0]); i++)
        (void)faccessat(AT_FDCWD, looked_up[i], F_OK, 0);
    static struct user root;
    if (e == 0)
        (void)user_find("", &root, &(const char *){NULL});
    return e;
}

bool container_is_used(void)
{
    return group_is_used;
}

/* Not all of them need be the user's: one is process 1. */
static bool others_live(void)
{
    char count[12] = "";
    int fd = openat(group, "pids.current", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, count, sizeof(count) - 1);
    if (fd >= 0)
        close(fd);
    return n > 0 && strcmp(count, "1\n") != 0;
}

bool container_is_taken(void)
{
    look_for_first();
    return first.state == TAKEN;
}

int container_cgroup(void)
{
    return group;
}

/* ---- its processes ------------------------------------------------------------------------ */

/* Where nobody of the user's could stop what is started it takes as long as a busy host has it. */
int container_await(int *running, const char **what)
{
    if (clone_await(running, others_ran ? START_MS : CLONE_FOREVER))
        return 0;
    *what = stopped;
    end_first();
    clone_await(running, CLONE_FOREVER); /* who is in the namespace ends with it */
    return ETIMEDOUT;
}

static int call(int (*fn)(void *arg), void *arg, const char **what)
{
    first.fn = fn;
    first.arg = arg;
    first.state = TAKEN;
    wake(&first.go, 1);
    int e = container_await(&first.running, what);
    if (first.failed || e != 0)
        first.state = NOBODY;
    return e;
}

/* A file of process 1's directory in /proc, whose name begins with '/'. */
static int open_of_first(const char *name, int flags)
{
    char path[32], *end = path + sizeof(path) - 1 - strlen(name);
    memcpy(end, name, strlen(name) + 1);
    return openat(own_proc, number_before(end, (uint64_t)first.pid), flags | O_CLOEXEC);
}

/* An OOM score is also that of who shares its memory, but for the machine's own process 1. */
static void set_score(const char *score)
{
    int fd = open_of_first("/oom_score_adj", O_WRONLY);
    if (fd < 0)
        return; /* it has ended */
    (void)!write(fd, score, strlen(score));
    close(fd);
}

void container_keep_init(void)
{
    set_score("-1000");
}

/* While it is parked. */
static void keep(bool kept)
{
    if (first.kept != kept)
        set_score(kept ? "-1000" : "0");
    first.kept = kept;
}

/* A process 1 that is parked has dropped what cannot be had back. */
static int make_room(const struct sm_wire_process *asked, const char **what)
{
    if (first.state != PARKED || !process_exceeds(asked))
        return 0;
    if (group_is_used && others_live()) {
        *what = "what was left running keeps process 1, which has given up what is asked for";
        return EBUSY;
    }
    end_first();
    first.state = NOBODY;
    return 0;
}

pid_t container_first(
    int (*fn)(void *arg), void *arg, const struct sm_wire_process *asked, const char **what)
{
    int e = make_room(asked, what);
    if (e == 0 && first.state == NOBODY)
        e = make_anew(asked, what);
    others_ran = group_is_used;
    if (e == 0) {
        group_is_used = true;
        keep(false);
        e = call(fn, arg, what);
    }
    errno = e;
    return e == 0 ? first.pid : -1;
}

void container_exec_init(pid_t command)
{
    char digits[12] = "", *number = digits + sizeof(digits) - 1;
    if (command != CONTAINER_NO_INIT)
        number = number_before(number, (uint64_t)command);
    char *const argv[] = {(char[]){INIT_NAME}, number, NULL};
    char *const envp[] = {NULL};
    syscall(SYS_execveat, init_program, "", argv, envp, AT_EMPTY_PATH);
}

/* As text. Its length, or -1. */
static ssize_t read_of_first(const char *name, char *text, size_t size)
{
    int fd = open_of_first(name, O_RDONLY);
    ssize_t len = fd < 0 ? -1 : read(fd, text, size - 1);
    if (fd >= 0)
        close(fd);
    text[len < 0 ? 0 : len] = 0;
    return len;
}

/* A group that has controllers for its own groups takes no process itself: then process 1 has moved
 * on, and others go where it is. */
static int group_of_first(void)
{
    static const char prefix[] = "0::/";
    char text[512];
    if (read_of_first("/cgroup", text, sizeof(text)) <= 0 ||
        strncmp(text, prefix, sizeof(prefix) - 1) != 0)
        return -1;
    text[strcspn(text, "\n")] = 0;
    return openat(group, text + sizeof(prefix) - 1, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Of a mask of /proc/PID/status. */
static bool has_signal(const char *status, const char *mask, int sig)
{
    const char *p = strstr(status, mask);
    if (!p)
        return false;
    uint64_t signals = 0;
    for (p += strlen(mask); *p && *p != '\n'; p++)
        signals = signals << 4 | (uint64_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
    return (signals >> (sig - 1) & 1) != 0;
}

bool container_has_ended(void)
{
    char status[2048];
    if (first.state == NOBODY)
        return true;
    if (read_of_first("/status", status, sizeof(status)) <= 0 || strstr(status, "\nVmSize:"))
        return false; /* it runs */
    await_end();
    return first.state == NOBODY;
}

/* It ends nobody who does nothing about it. */
static bool is_harmless(int sig)
{
    return sig == SIGCHLD || sig == SIGCONT || sig == SIGURG || sig == SIGWINCH || sig == SIGSTOP ||
           sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

/* While it waits for signals the kernel does not count them as blocked. */
static bool waits_for_signals(void)
{
    char text[256], number[12] = "", *end = number + sizeof(number) - 1;
    const char *wanted = number_before(end, SYS_rt_sigtimedwait);
    size_t len = strlen(wanted);
    return read_of_first("/syscall", text, sizeof(text)) > 0 && strncmp(text, wanted, len) == 0 &&
           text[len] == ' ';
}

bool container_spares(pid_t pid, int sig)
{
    char status[2048];
    return pid == first.pid && first.state == TAKEN && !is_harmless(sig) &&
           read_of_first("/status", status, sizeof(status)) > 0 &&
           !has_signal(status, "\nSigIgn:\t", sig) && !has_signal(status, "\nSigCgt:\t", sig) &&
           !has_signal(status, "\nSigBlk:\t", sig) && !waits_for_signals();
}

/* Who is in the container can freeze or stop it before it executes. */
static pid_t clone_into(int cgroup, int (*fn)(void *arg), void *arg)
{
    const struct clone_child child = {
        .stack = stack,
        .stack_size = sizeof(stack),
        .cgroup = cgroup,
        .fn = fn,
        .arg = arg,
    };
    return clone_until_it_executes(&child, START_MS);
}

pid_t container_join(
    int (*fn)(void *arg), void *arg, const struct sm_wire_process *asked, const char **what)
{
    int e = container_renew(what);
    if (e != 0) {
        errno = e;
        return -1;
    }
    keep(first.state == PARKED);
    group_is_used = others_ran = true;
    *what = "cannot make it";
    pid_t pid = clone_into(group, fn, arg);
    if (pid < 0 && errno == EBUSY) {
        int leaf = group_of_first();
        pid = close_after(leaf, leaf < 0 ? -1 : clone_into(leaf, fn, arg));
    }
    int errnum = errno;
    if (pid < 0 && errnum == ETIMEDOUT)
        *what = stopped;
    if (first.kept && (asked->flags & SM_WIRE_PROCESS_OOM_SCORE))
        container_keep_init(); /* the score was process 1's, too, until it executed */
    errno = errnum;
    return pid;
}

bool container_reap(pid_t pid, int status)
{
    if (pid != first.pid)
        return false;
    bool was_used = first.state != NOBODY && group_is_used;
    first.state = NOBODY;
    return was_used && WIFSIGNALED(status) &&
           (WTERMSIG(status) == SIGINT || WTERMSIG(status) == SIGHUP);
}
