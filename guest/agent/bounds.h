/*
 * What the container may take of the machine's memory and processes, so that the agent and the
 * kernel have what they need whatever runs there.
 *
 * Memory ends in three steps. First the writable layer is full, which is one tmpfs for / and
 * /dev/shm together: ENOSPC, or SIGBUS for who has mapped a hole. It is bounded so that a quarter
 * of the memory, 48 MiB at least, is left to processes: what lies in a tmpfs cannot be had back,
 * and no kill would help. Then the container's cgroup is full, and the kernel kills a process of
 * it, mostly the largest one, but never the agent. A reserve stays that the container cannot have,
 * for the kernel's own tables, network buffers and the agent. So the machine as a whole does not
 * run out of memory.
 *
 * Processes: the kernel's own bound (threads-max, one for each 128 KiB) would be reached by a fork
 * bomb and leave the agent without a fork. The container's is below it.
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

#endif
