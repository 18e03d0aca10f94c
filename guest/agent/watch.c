/*
 * WATCH: the host is told what listens, now and whenever that has changed.
 *
 * The kernel does not tell of sockets that begin to listen, so the agent looks; only while somebody
 * watches, soon after a command was started, then ever less often. A look costs the guest a
 * fraction of what starting a process does (docs/agent-protocol.md), and says nothing when all is
 * as before: what was told is kept as a digest. While the host has not taken what it was told,
 * there are no looks.
 */
#include "watch.h"

#include "probe.h"

#define LOOK_MIN_MS 250u
#define LOOK_MAX_MS 2000u

struct watch {
    struct conn *next;
    uint64_t seen; /* digest of what the host was told; 0: nothing yet */
    uint32_t ms;   /* to the next look */
};
_Static_assert(sizeof(struct watch) <= CONN_OWN_BYTES, "fits into a conn");

static struct conn *watches;

static uint64_t digest(const struct probe *p)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a; never 0 in practice */
    const uint8_t *at = p->frame + SM_WIRE_HEADER + 4;
    for (uint32_t i = 0; i < p->count * SM_WIRE_SOCKET_SIZE; i++)
        h = (h ^ at[i]) * 1099511628211u;
    return h;
}

static void look_after(struct conn *c, uint64_t now, uint32_t ms)
{
    conn_set_timer(c, now + (uint64_t)ms * 1000000u);
}

static void look(struct conn *c)
{
    struct watch *w = conn_own(c);
    struct probe p = {.max = SM_WIRE_MAX_WATCHED};
    if (c->out || !probe_look(c, &p, false))
        return;
    uint64_t h = digest(&p);
    if (h == w->seen) {
        probe_drop(c, &p);
        return;
    }
    w->seen = h;
    probe_send(c, &p);
}

static void look_again(struct conn *c, uint64_t now, uint64_t late_ns)
{
    struct watch *w = conn_own(c);
    w->ms = w->ms * 2 < LOOK_MAX_MS ? w->ms * 2 : LOOK_MAX_MS;
    look_after(c, now, w->ms);
    look(c);
}

static void lost(struct conn *c)
{
    const struct watch *w = conn_own(c);
    struct conn **link = &watches;
    while (*link != c)
        link = &((struct watch *)conn_own(*link))->next;
    *link = w->next;
}

static const struct conn_user watch = {.timer = look_again, .lost = lost};

void watch_start(struct conn *c)
{
    conn_take(c, &watch);
    *(struct watch *)conn_own(c) = (struct watch){.next = watches, .ms = LOOK_MIN_MS};
    watches = c;
    look_after(c, loop_now_ns(), LOOK_MIN_MS);
    look(c);
}

void watch_soon(void)
{
    uint64_t now = watches ? loop_now_ns() : 0;
    for (struct conn *c = watches; c;) {
        struct watch *w = conn_own(c);
        w->ms = LOOK_MIN_MS;
        if (c->timer.at_ns > now + LOOK_MIN_MS * 1000000u)
            look_after(c, now, LOOK_MIN_MS);
        c = w->next;
    }
}
