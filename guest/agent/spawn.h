/* Starting a process: see spawn.c. */
#ifndef SM_AGENT_SPAWN_H
#define SM_AGENT_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "user.h"
#include "wire/wire.h"

struct spawn {
    char *const *argv;
    char *const *envp;
    const char *path; /* value of PATH in envp */
    const char *cwd;
    const struct user *user;
    const struct sm_wire_process *process;
    int fds[3];   /* become 0, 1, 2; -1: /dev/null */
    bool tty;     /* fds[0] is one, and becomes the controlling terminal */
    bool first;   /* as process 1 of the container, if that is nobody yet */
    bool systemd; /* with that: what it expects is mounted */
    bool trial;   /* executes our program, which ends at once */
    bool init;    /* with that: as the child of a small init, which is process 1 */
    /* What went wrong; kind 0: nothing. */
    enum sm_wire_error_kind kind;
    int errnum;
    const char *what;
    const char *which; /* at what of the request; NULL: at the command */
    const char *step;  /* of that; NULL: nothing more is known */

    bool bounded;  /* the child comes from a process that has dropped capabilities */
    bool inherits; /* the child of a small init: it has its streams */
    int running;   /* of the child of a small init: futex, 0 when it has executed or failed */
};

/* The agent may open as many files as there can be; what it starts gets the limit that was
 * before. */
void spawn_raise_files(void);

/* Starts it; returns the pid, or -1 and s->kind, errnum, what. */
pid_t spawn(struct spawn *s);

#endif
