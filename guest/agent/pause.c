/*
 * FREEZE and THAW. Stopping everybody takes a while, so it is waited for; if it does not come
 * about, or nobody waits for it any more, all goes on as if nothing had been. What has been stopped
 * stays so until THAW or RESTORE, whatever becomes of the conn: a capture closes it.
 */
#include "pause.h"

#include "exec.h"
#include "system.h"
#include "wait.h"

#define LOOK_MS 10u

static bool frozen; /* FREEZE was done, THAW not yet */

bool pause_is_on(void)
{
    return frozen;
}

int pause_end(const char **what)
{
    int e = frozen ? system_thaw(what) : 0;
    frozen = frozen && e != 0;
    return e;
}

/* Nobody waits for what is frozen, nor will let it go on. */
static void give_up(struct conn *c)
{
    system_thaw(&(const char *){NULL});
    frozen = false;
    exec_outlive(false);
}

/* Either error ends the conn, and that the freeze. */
static void look(struct conn *c, uint64_t now)
{
    int rc = system_frozen();
    if (rc > 0) {
        conn_put(c, SM_WIRE_OK, NULL);
        conn_leave(c);
    } else if (rc < 0) {
        conn_error(c, SM_WIRE_E_INTERNAL, -rc, "cannot tell whether all is frozen", NULL);
    } else if (!wait_timed_out(c, now, "not all processes could be frozen in time")) {
        wait_next(c, now, LOOK_MS);
    }
}

static void look_again(struct conn *c, uint64_t now, uint64_t late_ns)
{
    wait_was_late(c, late_ns);
    look(c, now);
}

_Static_assert(sizeof(struct wait) <= CONN_OWN_BYTES, "fits into a conn");
static const struct conn_user waits = {.timer = look_again, .lost = give_up};

void pause_begin(struct conn *c, const struct sm_wire_freeze *m)
{
    const char *what = "";
    bool anybody = false;
    int e = system_freeze(&anybody, &what);
    if (e != 0) {
        system_thaw(&(const char *){NULL});
        conn_error(c, SM_WIRE_E_INTERNAL, e, what, NULL);
        return;
    }
    if (!anybody) {
        conn_put(c, SM_WIRE_OK, NULL);
        return;
    }
    uint64_t now = loop_now_ns();
    frozen = true;
    exec_outlive(true);
    wait_begin(c, &waits, now, m->timeout_ms);
    look(c, now);
}
