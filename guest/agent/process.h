/* The attributes of a command's process: see process.c. */
#ifndef SM_AGENT_PROCESS_H
#define SM_AGENT_PROCESS_H

#include <stdbool.h>

#include "user.h"
#include "wire/wire.h"

/* What went wrong, and with which word of the request; NULL: with the process. errno is set. */
struct process_failure {
    const char *what, *which;
};

/* Takes from the caller's bounding set what no command has unless it asks: from what is a command's
 * process in the end, and so early that its start does not pay for it. 0, or -1 and errno. */
int process_bound(void);
/* Once, before a container is made: what sets sysctls. 0, or -1 and errno. */
int process_open(void);

/* Something is asked for that no process can have which is bounded so. */
bool process_exceeds(const struct sm_wire_process *p);

/* In the child, with all rights still: what is not about it alone. `first`: it is the container's
 * own command; `systemd`: and gets what that expects. 0, or -1. */
int process_prepare(
    const struct sm_wire_process *p, bool first, bool systemd, struct process_failure *failure);
/* Once nothing more is to be made in / for it. */
int process_seal(const struct sm_wire_process *p, struct process_failure *failure);
/* The last before it executes. bounded: process_bound was called in it, or in who made it. */
int process_become(const struct sm_wire_process *p, const struct user *u, bool bounded,
    struct process_failure *failure);

#endif
