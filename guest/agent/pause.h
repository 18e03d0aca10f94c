/* FREEZE and THAW: the guest's processes stand still for a capture. See pause.c. */
#ifndef SM_AGENT_PAUSE_H
#define SM_AGENT_PAUSE_H

#include "conn.h"

void pause_begin(struct conn *c, const struct sm_wire_freeze *m);
/* The processes go on, if they were stopped. 0, or an errno value and the step in *what. */
int pause_end(const char **what);

#endif
