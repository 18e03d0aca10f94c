/* Starting what an EXEC asks for: see launch.c. */
#ifndef SM_AGENT_LAUNCH_H
#define SM_AGENT_LAUNCH_H

#include "conn.h"

struct launched {
    pid_t pid;
    int in, out[2]; /* our ends of its streams, -1: none; those of a terminal are in and out[0] */
    int terminal;   /* its end of one, -1: none */
    uint64_t start_ns;
};

/* False: ERROR was sent, and nothing is left. */
bool launch(struct conn *c, const struct sm_wire_exec *m, struct launched *l);

#endif
