/*
 * Programs of ours that are started: helpers that belong to one object of the library, in whatever
 * process that is.
 *
 * The program is nobody's child but the system's: it is started by a process that ends at once,
 * whose own exit signal is 0. So a caller that waits for any child never meets it, one that ignores
 * SIGCHLD takes nothing away from us, and init takes it away, or sm_spawn_wait does where the
 * caller is whom orphans are given to: so that is called before the pidfd is closed. (An exit
 * signal of 0 alone would not do, since execve makes it SIGCHLD.) Who started it has its pidfd,
 * which tells its end but not how it ended: what there is to say it says itself. It is a process
 * group of its own, which no key of a terminal reaches, in the caller's session, with which it
 * shares the CPU. It has the descriptors that it is given and no others, and no signal blocked.
 *
 * The caller may have threads that hold any lock, closed standard descriptors and few descriptors
 * left: between clone and execve nothing is called but system calls.
 *
 * System calls: mmap, munmap, rt_sigprocmask, clone, wait4, poll, pidfd_send_signal; the child's:
 * fcntl, dup3, close_range, setpgid, rt_sigprocmask, execve, exit_group.
 */
#ifndef SM_UTIL_SPAWN_H
#define SM_UTIL_SPAWN_H

#include <stdbool.h>

#include <supermachine.h>

#define SM_SPAWN_FIRST 3  /* descriptor number of the first one that is given */
#define SM_SPAWN_MAX   16 /* descriptors */

struct sm_spawn {
    const char *program; /* path */
    const char *const *argv;
    /* The child's, from SM_SPAWN_FIRST on; -1: none has this number. Its first three are
     * /dev/null. */
    const int *fds;
    unsigned n_fds;
};

/* *pidfd is the caller's, close-on-exec; *pid is for messages and /proc only. When the program
 * cannot be executed that is this call's failure. */
int sm_spawn(const struct sm_spawn *spawn, int *pidfd, int *pid, sm_error *err);

/* Whether it has ended, after timeout_ms at the latest (negative: when it has). */
bool sm_spawn_wait(int pidfd, int timeout_ms);

/* Ends it; when this returns it is gone. */
void sm_spawn_kill(int pidfd);

#endif
