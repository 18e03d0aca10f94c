/* WATCH: the host is told what listens. See watch.c. */
#ifndef SM_AGENT_WATCH_H
#define SM_AGENT_WATCH_H

#include "conn.h"

void watch_start(struct conn *c);
/* Something was started that may soon listen. */
void watch_soon(void);

#endif
