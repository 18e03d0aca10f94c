/*
 * WATCH: the host is told what listens, now and whenever that has changed.
 *
 * The kernel does not tell of sockets that begin to listen, so the agent looks; only while somebody
 * watches, soon after a command was started, then ever less often. A look costs the guest a fraction of
 * what starting a process does (docs/agent-protocol.md), and says nothing when all is as before: what was
 * told is kept as a digest. While the host has not taken what it was told, there are no looks.
 */
#include "agent.h"

#define LOOK_MIN_MS 250u
#define LOOK_MAX_MS 2000u

static uint64_t digest(const struct probe *p)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a; never 0 in practice */
    const uint8_t *at = p->frame + SM_WIRE_HEADER + 4;
    for (uint32_t i = 0; i < p->count * SM_WIRE_SOCKET_SIZE; i++)
        h = (h ^ at[i]) * 1099511628211u;
    return h;
}

static void look_after(struct agent *a, struct conn *c, uint64_t now, uint32_t ms)
{
    conn_set_timer(a, c, now + (uint64_t)ms * 1000000u);
}

static void look(struct agent *a, struct conn *c)
{
    struct probe p = {.max = SM_WIRE_MAX_WATCHED};
    if (c->out)
        return;
    if (!probe_look(a, c, &p, false)) {
        a->n_watches--;
        conn_set_timer(a, c, 0);
        return;
    }
    uint64_t h = digest(&p);
    if (h == c->seen) {
        probe_drop(a, c, &p);
        return;
    }
    c->seen = h;
    probe_send(a, c, &p);
}

void watch_start(struct agent *a, struct conn *c)
{
    c->state = CONN_WATCH;
    c->seen = 0;
    c->poll_ms = LOOK_MIN_MS;
    a->n_watches++;
    look_after(a, c, agent_now_ns(), c->poll_ms);
    look(a, c);
}

void watch_timer(struct agent *a, struct conn *c, uint64_t now)
{
    c->poll_ms = c->poll_ms * 2 < LOOK_MAX_MS ? c->poll_ms * 2 : LOOK_MAX_MS;
    look_after(a, c, now, c->poll_ms);
    look(a, c);
}

void watch_soon(struct agent *a)
{
    uint64_t now = a->n_watches > 0 ? agent_now_ns() : 0;
    for (unsigned i = 0; a->n_watches > 0 && i < a->n_conns; i++) {
        struct conn *c = &a->conns[i];
        if (c->state != CONN_WATCH)
            continue;
        c->poll_ms = LOOK_MIN_MS;
        if (c->next_ns > now + LOOK_MIN_MS * 1000000u)
            look_after(a, c, now, LOOK_MIN_MS);
    }
}
