/*
 * A process that shares the agent's memory until it executes (CLONE_VM), with what only clone3 can
 * do: it is born in a cgroup, which costs neither a grace period nor the lock that moving there
 * takes. No libc has a clone3 with a stack.
 *
 * The child runs `fn` on a stack of its own and ends with what that returns. It may read the
 * agent's memory and leave word in structures that are meant for it; it makes system calls
 * directly, because a libc's setuid and the like think of threads.
 */
#ifndef SM_AGENT_CLONE_H
#define SM_AGENT_CLONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct clone_child {
    uint64_t flags; /* besides CLONE_VM */
    void *stack;
    size_t stack_size;
    int cgroup;   /* directory of the group that it is born in; -1: ours */
    int *pidfd;   /* where its pidfd goes, with CLONE_PIDFD */
    int *running; /* with CLONE_CHILD_CLEARTID: becomes 0, and wakes, when it executes or ends */
    int (*fn)(void *arg);
    void *arg;
};

/* The pid, or -1 and errno. */
pid_t clone_child(const struct clone_child *c);
#define CLONE_FOREVER UINT32_MAX /* ms: 49 days, which is as good */
/* Waits for it. False: after so long it still has neither executed nor ended. */
bool clone_await(int *running, uint32_t ms);
/* The same when it has executed or ended; one that has not after so long, because somebody stops
 * it, is killed: ETIMEDOUT. A vfork would wait for ever. `pidfd` and `running` are not used. */
pid_t clone_until_it_executes(const struct clone_child *c, uint32_t ms);

#endif
