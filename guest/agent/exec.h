/* Commands: see exec.c. */
#ifndef SM_AGENT_EXEC_H
#define SM_AGENT_EXEC_H

#include "conn.h"

/* True: it runs. */
bool exec_start(struct conn *c, const struct sm_wire_exec *m);
void exec_attach(struct conn *c, const struct sm_wire_attach *m);
/* Whether the commands that there are shall outlive the loss of their connections: in a snapshot of
 * a running VM all are lost, and nobody has given the commands up. */
void exec_outlive(bool outlive);
/* The command's output and its end wait for an ATTACH from now on. */
void exec_keep(uint32_t pid);
/* Children have ended. */
void exec_reap(void);

/* For the tests: how many there are. */
unsigned exec_count(void);

#endif
