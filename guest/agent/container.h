/*
 * The container: what the user's processes are in, and the agent is not. It has a PID, an IPC and a
 * cgroup namespace, a mount namespace, and a cgroup for everything in it.
 *
 * Process 1 is made at boot and parked: its namespaces are there, /proc and cgroups are mounted,
 * and all that it lacks is what to execute. It shares the agent's memory and
 * descriptors until then (clone.h), so that nothing must be handed to it: whoever is to become
 * process 1 leaves a function with container_first and the process goes on with that. So a start
 * after a restore makes no process, copies no page table and mounts nothing.
 *
 * Others may join before anybody is process 1: a warm-up, or the commands of a library's VM that
 * has none of its own. It is then what a small init would be: their orphans' parent, whom the
 * kernel does not choose when memory ends; and who becomes process 1 later has with it what they
 * left running. Who shares the agent's memory cannot be looked into from the container without
 * CAP_SYS_PTRACE, for the agent is not dumpable, and no command has that unless it is asked for.
 *
 * When process 1 ends the kernel kills whoever is left in its namespace, and the next who asks gets
 * a container made anew: same files, other namespaces.
 *
 * The agent lives in the container's namespaces, too, but for the PID namespace: what a path of the
 * host's means is what it means in the container, and a mount of the agent's is there at once. It
 * keeps a proc and a cgroup file system of its own as descriptors. Its children are born in the
 * container's PID namespace and cgroup, so that they have nothing to join.
 *
 * The tests link another implementation.
 */
#ifndef SM_AGENT_CONTAINER_H
#define SM_AGENT_CONTAINER_H

#include <stdbool.h>
#include <sys/types.h>

#include "wire/wire.h"

/* At boot, when everything is mounted: makes it. 0, or an errno value and the step in *what. */
int container_open(const char **what);
/* Makes it anew if its process 1 has ended. Likewise. */
int container_renew(const char **what);
/* Before a capture: that, and whatever else makes a start in a restore cheap. */
int container_prepare(const char **what);
/* Somebody of the user's is in it, or was. */
bool container_is_used(void);
/* Process 1 is somebody already. */
bool container_is_taken(void);
/* The directory of its cgroup. */
int container_cgroup(void);

/* A process of the container that calls fn(arg), which executes something or returns an exit code;
 * as process 1, if that is nobody yet, or as another one. Returns when it has executed (the pid; or
 * fn has failed), or -1, errno, and the step in *what. A process 1 that is parked can only become
 * what podman gives where nothing is said; where more is asked for it makes room for another, and
 * that has dropped nothing; unless others run in its namespace already: EBUSY. */
pid_t container_first(
    int (*fn)(void *arg), void *arg, const struct sm_wire_process *asked, const char **what);
pid_t container_join(
    int (*fn)(void *arg), void *arg, const struct sm_wire_process *asked, const char **what);

/* In process 1, which must not have executed yet: executes the small init, whose command is its
 * child with this number; CONTAINER_NO_INIT: it ends at once. Returns on failure. */
#define CONTAINER_NO_INIT (-1)
void container_exec_init(pid_t command);
/* Process 1 has executed it, and nobody shares its memory: memory that ends is not its fault, and
 * everything would end with it, so the kernel does not kill it for that. */
void container_keep_init(void);
/* Waits until a process in the container that was made with CLONE_CHILD_CLEARTID has executed or
 * ended. 0; or ETIMEDOUT and the step in *what: who was there before stops it, and it was ended
 * with process 1. */
int container_await(int *running, const char **what);

/* After ENOMEM of container_join, which may have been for process 1 is ending: its namespace takes
 * nobody any more. True: that was so, it has ended (and who of our children has was reported), and
 * the next process begins in a container made anew. */
bool container_has_ended(void);

/* This child is process 1, which the kernel spares this signal because it neither handles, blocks
 * nor ignores it; any other process would be ended by it. */
bool container_spares(pid_t pid, int sig);

/* This child has ended. True: it was process 1, by reboot(2), which sends it SIGHUP or SIGINT in a
 * PID namespace, and nobody else can: somebody wants the machine to go down. */
bool container_reap(pid_t pid, int status);

#endif
