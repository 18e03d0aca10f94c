/* Deadlines that are fair: see wait.h. */
#include "wait.h"

/* A look that comes later than this was late because we did not run: the host has no CPU for us, or
 * the VM stood still. That is nobody's fault in here, and the host has its own limit for how long
 * it waits for us. */
#define LATE_NS 50000000u

void wait_begin(struct conn *c, const struct conn_user *user, uint64_t now, uint32_t timeout_ms)
{
    conn_take(c, user);
    *(struct wait *)conn_own(c) = (struct wait){now + (uint64_t)timeout_ms * 1000000u};
}

void wait_next(struct conn *c, uint64_t now, uint32_t ms)
{
    const struct wait *w = conn_own(c);
    uint64_t next = now + (uint64_t)ms * 1000000u;
    conn_set_timer(c, next < w->deadline_ns ? next : w->deadline_ns);
}

void wait_was_late(struct conn *c, uint64_t late_ns)
{
    struct wait *w = conn_own(c);
    if (late_ns > LATE_NS)
        w->deadline_ns += late_ns;
}

bool wait_timed_out(struct conn *c, uint64_t now, const char *message)
{
    const struct wait *w = conn_own(c);
    if (now < w->deadline_ns)
        return false;
    conn_error(c, SM_WIRE_E_TIMEOUT, 0, message, NULL);
    return true;
}
