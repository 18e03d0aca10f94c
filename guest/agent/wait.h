/*
 * A request that waits: its conn's user looks whether what is waited for is there, and looks again
 * later, until the deadline. Who waits has a struct wait at the beginning of his own.
 */
#ifndef SM_AGENT_WAIT_H
#define SM_AGENT_WAIT_H

#include "conn.h"

struct wait {
    uint64_t deadline_ns;
};

/* The conn is the user's from now on, who is to look within timeout_ms. */
void wait_begin(struct conn *c, const struct conn_user *user, uint64_t now, uint32_t timeout_ms);
/* The next look is after ms, or at the deadline, whichever is first. */
void wait_next(struct conn *c, uint64_t now, uint32_t ms);
/* In a look by the timer: that much of the time was nobody's. */
void wait_was_late(struct conn *c, uint64_t late_ns);
/* True: the deadline has come, and the answer is an error. */
bool wait_timed_out(struct conn *c, uint64_t now, const char *message);

#endif
