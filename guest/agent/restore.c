/*
 * RESTORE and its single steps: a copy of a guest gets entropy, a clock and an identity of its own
 * before anything of the user's runs in it. If one of these fails nothing is thawed.
 */
#include "restore.h"

#include "exec.h"
#include "identity.h"
#include "pause.h"
#include "system.h"

void restore_clock(struct conn *c, const struct sm_wire_set_clock *m)
{
    const char *what = "";
    int e = system_set_clock(m->realtime_ns, &what);
    conn_answer(c, e, what);
}

void restore_entropy(struct conn *c, const struct sm_wire_add_entropy *m)
{
    const char *what = "";
    if (m->seed.len == 0) {
        conn_error(c, SM_WIRE_E_BAD_VALUE, 0, "the seed is empty", NULL);
        return;
    }
    int e = system_add_entropy(m->seed.data, m->seed.len, &what);
    conn_answer(c, e, what);
}

void restore_identity(struct conn *c, const struct sm_wire_set_identity *m)
{
    const char *what = "";
    if (!identity_is_good(m->hostname, m->machine_id)) {
        conn_error(c, SM_WIRE_E_BAD_VALUE, 0, "not a host name or not a machine id", NULL);
        return;
    }
    int e = identity_set(m->hostname, m->machine_id, &what);
    conn_answer(c, e, what);
}

static bool is_address(const struct sm_wire_bytes *b, uint32_t len)
{
    return b->len == len || b->len == 0;
}

static bool are_addresses(const struct sm_wire_set_network *m)
{
    return m->mac.len == 6 && is_address(&m->address4, 4) && is_address(&m->gateway4, 4) &&
           is_address(&m->address6, 16) && is_address(&m->gateway6, 16) && m->prefix4 <= 32 &&
           m->prefix6 <= 128;
}

void restore_network(struct conn *c, const struct sm_wire_set_network *m)
{
    const char *what = "";
    bool card = m->mac.len > 0;
    if (card && !are_addresses(m)) {
        conn_error(c, SM_WIRE_E_BAD_VALUE, 0, "not addresses of a network card", NULL);
        return;
    }
    int e = card ? system_set_network(m, &what) : 0;
    if (e == 0 && card)
        e = system_set_hosts(&what);
    if (e == 0)
        e = system_set_resolver(m->resolv_conf, &what);
    conn_answer(c, e, what);
}

void restore_all(struct conn *c, const struct sm_wire_restore *m)
{
    const char *what = "";
    if (m->seed.len == 0 || !identity_is_good(m->hostname, m->machine_id)) {
        conn_error(c, SM_WIRE_E_BAD_VALUE, 0, "no seed, not a host name or not a machine id", NULL);
        return;
    }
    int e = system_add_entropy(m->seed.data, m->seed.len, &what);
    if (e == 0)
        e = system_set_clock(m->realtime_ns, &what);
    if (e == 0)
        e = identity_set(m->hostname, m->machine_id, &what);
    if (e == 0) {
        exec_keep(m->attach_pid);
        e = pause_end(&what);
    }
    conn_answer(c, e, what);
}
