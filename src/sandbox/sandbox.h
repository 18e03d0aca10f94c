/*
 * How one of our processes gives up what it has no need of, before it reads a byte of a stranger's.
 *
 * What it needs it has in its hand: descriptors that were opened before, by it or by who started
 * it. Then sm_sandbox_enter, while the process has one thread, takes away all else, and
 * sm_sandbox_tighten takes away what only the set-up needed. Nothing is ever given back. Who is
 * taken over behind that wall can use its descriptors and call what is on its list, nothing else.
 *
 * The order is what each step needs of the others:
 *   1. trap's handler: so that a refusal of any later step's list is told.
 *   2. limits: lowering needs no right; while /proc is there errors can be looked up.
 *   3. another user, if asked for: setgroups and setresuid want capabilities of the host. The
 *      capabilities are kept over it, since where there are no user namespaces step 4 wants them.
 *   4. namespaces, by one unshare(2); the user namespace is what gives an unprivileged process the
 *      right to the others and to step 5. The process keeps its user and group in it: maps of one
 *      line. They are written through /proc/self, which is closed to a process that is not
 *      dumpable, so step 8 comes later. The network's namespace is the dear one (0.5 ms).
 *   5. an empty root: a mount(2) wants CAP_SYS_ADMIN in the namespace, and Landlock forbids mounts.
 *   6. capabilities: nothing below wants one.
 *   7. no new privileges: Landlock and seccomp want it, of who has no CAP_SYS_ADMIN.
 *   8. not dumpable: nobody of the same user can trace us or read our memory.
 *   9. Landlock, before seccomp, whose lists have none of its calls.
 *  10. seccomp, stage one.
 *
 * A host may refuse steps 4, 5 and 9 (a container, a sysctl, a kernel without them). Then the
 * process lives without, and sm_sandbox_layers says so, with the reason. What every host can do is
 * an error where it fails: limits, capabilities, no new privileges, seccomp.
 *
 * A process namespace holds children only, so it is not ours to enter: who starts us gives it, by
 * CLONE_NEWPID in the flags of clone3(2) (an unprivileged one adds CLONE_NEWUSER and writes both
 * maps before our exec(2)). We see it by having number 1. Where it was not given, the lists have no
 * call that names another process, and Landlock (ABI 6) keeps signals within.
 *
 * A call that is not on the list is not made: the kernel sends SIGSYS (SECCOMP_RET_TRAP), whose
 * handler writes one line to spec->trap_fd, "WHO was refused the system call NAME (NUMBER), ...",
 * and ends the process with SM_SANDBOX_STATUS_REFUSED. No list lets rt_sigaction set a handler. Who
 * blocks the signal is killed by the kernel: no line then, the status is that of SIGSYS. Both are
 * told by sm_sandbox_was_refused.
 *
 * Threads: enter before the first is made, so that all inherit it. tighten is for the whole process
 * or for the calling thread alone, as its list says.
 * Cost: docs/security.md. Builds with sanitizers have no sandbox, since these call what
 * they like (shadow memory, /proc, ptrace at the end); the layers say so.
 */
#ifndef SM_SANDBOX_SANDBOX_H
#define SM_SANDBOX_SANDBOX_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <supermachine.h>

#include "sandbox/layers.h"

struct sock_filter;

/* A list of system calls as a program for the kernel; they are in calls.h. */
struct sm_sandbox_calls {
    const char *name;
    const struct sock_filter *filter;
    unsigned short length;
    bool one_thread; /* tighten: for the calling thread, not for all of the process */
};

/* Status of a process that was refused a system call: what a shell says of SIGSYS. */
#define SM_SANDBOX_STATUS_REFUSED (128 + SIGSYS)

struct sm_sandbox_spec {
    /* Who we are in the sentence of a refusal, such as "the machine's process". */
    const char *who;
    /* Limits; 0: as it is. Never above what the process has. */
    uint64_t data_limit;       /* bytes of private writable memory (RLIMIT_DATA) */
    uint64_t file_limit;       /* bytes a file may grow to (RLIMIT_FSIZE); then EFBIG, no signal */
    uint64_t descriptor_limit; /* RLIMIT_NOFILE */
    /* This process opens sockets to the network: it keeps the host's network namespace, and
     * Landlock says nothing of TCP. */
    bool has_network;
    /* Become this user and group, which the caller may only if it is root. */
    bool change_user;
    uid_t uid;
    gid_t gid;
    /* Files and directories that stay visible, all below them, to be read only; NULL-ended, or
     * NULL. Absolute. What is not there, or closed to
     * it anyway, is left out. */
    const char *const *read_paths;
    /* The same, to be read and written, made and removed: for who keeps the host's root. */
    const char *const *write_paths;
    /* It finds what it needs by paths of the host: no namespaces and no empty root; Landlock alone
     * says which paths. */
    bool keeps_root;
    /* It ends processes that it started before, which are outside for Landlock: that says nothing
     * of signals then. */
    bool ends_others;
    /* If it is root: it reads and writes, on its paths, what belongs to others. */
    bool keeps_file_rights;
    /* Stage one; NULL: no list. */
    const struct sm_sandbox_calls *calls;
    /* Where the sentence of a refusal goes; it stays open. Negative: nowhere. */
    int trap_fd;
};

/* Confines this process, which has one thread. What happened is in *layers, also on failure; after
 * a failure the process is of no use but to say so. Signals: SIGSYS gets a handler and is
 * unblocked, SIGXFSZ is ignored where there is a file_limit. */
int sm_sandbox_enter(
    const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers, sm_error *err);

/* Takes away what `calls` has not, on top of what was taken before. Needs seccomp(2) on the lists
 * before it. For the whole process: no thread may have a list of its own yet. */
int sm_sandbox_tighten(const struct sm_sandbox_calls *calls, sm_error *err);

/* Whether a process that was waited for ended by a refused call: si_code and si_status of
 * waitid(2). */
static inline bool sm_sandbox_was_refused(int code, int status)
{
    return code == CLD_EXITED ? status == SM_SANDBOX_STATUS_REFUSED
                              : (code == CLD_KILLED || code == CLD_DUMPED) && status == SIGSYS;
}

#endif
