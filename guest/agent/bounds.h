/*
 * What the container may take of the machine's memory and processes, so that the agent and the
 * kernel have what they need whatever runs away there.
 *
 * Memory ends in three steps. First the writable layer is full, which is one tmpfs for / and
 * /dev/shm together: ENOSPC, or SIGBUS for who has mapped a hole. It is bounded so that a quarter
 * of the memory, 48 MiB at least, is left to processes: what lies in a tmpfs cannot be had back,
 * and no kill would help. Then the container's cgroup is full, and the kernel kills a process of
 * it, mostly the largest one, but never the agent. A reserve stays for the kernel's own tables,
 * network buffers and the agent. What the agent itself writes, files of the host's, is not counted
 * as the container's: with that the machine as a whole may still run out of memory.
 *
 * Processes: the kernel's own bound (threads-max, one for each 128 KiB) would be reached by a fork
 * bomb, and the kernel left without threads of its own. The container's is below it. The commands
 * that the agent starts are within it.
 *
 * The bounds are there for accidents. Root of the container may lift them: its groups are writable.
 *
 * The controllers that are on for this are there for the container's own groups, too, so that a
 * systemd or a container engine in it may use them.
 */
#ifndef SM_AGENT_BOUNDS_H
#define SM_AGENT_BOUNDS_H

#include <stdint.h>

struct bounds {
    uint64_t group;     /* memory.max of the container's cgroup */
    uint64_t layer;     /* bytes of the writable layer */
    uint64_t processes; /* pids.max */
};

/* Of a machine with so much memory. */
struct bounds bounds_of(uint64_t memory);
/* Of this one. */
struct bounds bounds_here(void);

/* Long enough for "max" or a number of 64 bits, and what ends it. */
#define BOUNDS_TEXT 24
/* Writes a number and returns the text. */
const char *bounds_text(char text[BOUNDS_TEXT], uint64_t number);

/* Sets those of the container's cgroup, a directory, and turns on what its parent's
 * cgroup.subtree_control is for. 0, or an errno value and the step in *what. */
int bounds_set(const char *controllers, int group, const char **what);
/* Nobody is in the group any more, and who was may have left anything there: groups of its own,
 * controllers that are on for them (such a group takes no process), a freeze, other bounds. What
 * was written stays counted, so it is not another group. Likewise. */
int bounds_reset(int group, const char **what);

#endif
