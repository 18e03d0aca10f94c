/* FREEZE and THAW: the guest's processes stand still for a capture. See pause.c. */
#ifndef SM_AGENT_PAUSE_H
#define SM_AGENT_PAUSE_H

#include "conn.h"

void pause_begin(struct conn *c, const struct sm_wire_freeze *m);
/* They stand still, or are about to: a command could not begin, and who waits for that waits for
 * the THAW that is behind it. */
bool pause_is_on(void);
/* The processes go on, if they were stopped. 0, or an errno value and the step in *what. */
int pause_end(const char **what);

#endif
