/*
 * What listens in the guest, is the guest idle, and stopping it.
 *
 * Listeners come from the kernel's socket tables (sock_diag over netlink): four dumps, TCP and UDP
 * for both families. Waiting for one is polling with a growing interval. Idle is what /proc/uptime
 * says: between two looks, quiet_ms apart, the CPUs were idle but for IDLE_PERMILLE of the time.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "system.h"
#include "util/bytes.h"

#define POLL_MIN_MS 10u
#define POLL_MAX_MS 200u
/* A look that comes later than this was late because we did not run: the host has no CPU for us, or the VM stood still. */
#define LATE_NS 50000000u
/* Above what the looks themselves cost where the guest kernel is emulated. */
#define IDLE_PERMILLE 100u
#define QUIET_MIN_MS  200u
#define QUIET_MAX_MS  5000u

/* States of the kernel's sockets: a UDP socket that is bound but not connected is "closed". */
#define STATE_CLOSE  7u
#define STATE_LISTEN 10u

/* ---- listeners ---------------------------------------------------------------------------- */

static bool ask(int fd, uint8_t family, uint8_t protocol)
{
    struct {
        struct nlmsghdr h;
        struct inet_diag_req_v2 r;
    } q = {
        .h = {.nlmsg_len = sizeof(q),
            .nlmsg_type = SOCK_DIAG_BY_FAMILY,
            .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .r = {.sdiag_family = family,
            .sdiag_protocol = protocol,
            .idiag_states = 1u << (protocol == IPPROTO_TCP ? STATE_LISTEN : STATE_CLOSE)},
    };
    return send(fd, &q, sizeof(q), 0) == (ssize_t)sizeof(q);
}

/* Behind the header and the length of the records. */
static uint8_t *records(const struct probe *p)
{
    return p->frame + SM_WIRE_HEADER + 4;
}

static void add(struct probe *p, const struct inet_diag_msg *d, uint8_t protocol)
{
    struct sm_wire_socket s = {
        .family = d->idiag_family == AF_INET6 ? 6 : 4,
        .protocol = protocol,
        .port = ntohs(d->id.idiag_sport),
    };
    if (s.port == 0)
        return; /* a UDP socket that was never bound */
    memcpy(s.address, d->id.idiag_src, s.family == 6 ? 16 : 4);
    if (protocol == IPPROTO_TCP) {
        p->any_tcp = true;
        p->found = p->found || s.port == p->want;
    }
    if (p->count < p->max)
        sm_wire_socket_store(records(p) + (size_t)p->count++ * SM_WIRE_SOCKET_SIZE, &s);
}

/* One dump. True when its end was seen. */
static bool collect(int fd, struct probe *p, uint8_t protocol)
{
    static _Alignas(struct nlmsghdr) uint8_t answer[16 * 1024];
    for (;;) {
        ssize_t got = recv(fd, answer, sizeof(answer), 0);
        if (got <= 0)
            return false;
        size_t left = (size_t)got;
        for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)answer; NLMSG_OK(h, left);
             h = NLMSG_NEXT(h, left)) {
            if (h->nlmsg_type == NLMSG_DONE)
                return true;
            if (h->nlmsg_type == NLMSG_ERROR) {
                const struct nlmsgerr *e = NLMSG_DATA(h);
                errno = -e->error;
                return false;
            }
            if (h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
                add(p, NLMSG_DATA(h), protocol);
        }
    }
}

static bool dump_all(struct probe *p, bool tcp_only)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return false;
    static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP}, families[] = {AF_INET, AF_INET6};
    bool ok = true;
    for (unsigned i = 0; ok && i < (tcp_only ? 1u : 2u); i++)
        for (unsigned f = 0; ok && f < 2; f++)
            ok = ask(fd, families[f], protocols[i]) && collect(fd, p, protocols[i]);
    int saved = errno;
    close(fd);
    errno = saved;
    return ok;
}

bool probe_look(struct agent *a, struct conn *c, struct probe *p, bool tcp_only)
{
    struct buffer *b = conn_room(a, c, SM_WIRE_HEADER + 4 + p->max * SM_WIRE_SOCKET_SIZE);
    if (!b) {
        conn_error(a, c, SM_WIRE_E_INTERNAL, ENOMEM, "no memory for the list of sockets", NULL);
        return false;
    }
    p->buffer = b;
    p->frame = b->data + b->start + b->len;
    if (!dump_all(p, tcp_only)) {
        conn_error(a, c, SM_WIRE_E_INTERNAL, errno, "cannot list sockets", NULL);
        return false;
    }
    return true;
}

void probe_send(struct agent *a, struct conn *c, const struct probe *p)
{
    uint32_t len = p->count * SM_WIRE_SOCKET_SIZE;
    sm_wire_data_header(p->frame, SM_WIRE_SOCKETS, 4 + len);
    sm_store_le32(p->frame + SM_WIRE_HEADER, len);
    conn_commit(a, c, SM_WIRE_HEADER + 4 + len);
}

void probe_drop(struct agent *a, struct conn *c, const struct probe *p)
{
    if (p->buffer->len > 0)
        return;
    buffer_put(a, p->buffer);
    c->out = NULL;
}

/* False: what is waited for is not there yet. */
static bool answer_sockets(struct agent *a, struct conn *c, uint32_t port, bool wait)
{
    struct probe p = {.max = SM_WIRE_MAX_SOCKETS, .want = (uint16_t)port};
    if (!probe_look(a, c, &p, wait))
        return true;
    if (wait && !(port == 0 ? p.any_tcp : p.found)) {
        probe_drop(a, c, &p);
        return false;
    }
    probe_send(a, c, &p);
    return true;
}

void probe_listeners(struct agent *a, struct conn *c)
{
    answer_sockets(a, c, 0, false);
}

/* ---- waiting ------------------------------------------------------------------------------ */

static void wait_over(struct agent *a, struct conn *c)
{
    conn_set_timer(a, c, 0);
    if (c->state != CONN_CLOSING)
        c->state = CONN_REQUEST;
}

/* Next look after ms, or at the deadline, whichever is first. */
static void wait_on(struct agent *a, struct conn *c, uint64_t now, uint32_t ms)
{
    uint64_t next = now + (uint64_t)ms * 1000000u;
    conn_set_timer(a, c, next < c->deadline_ns ? next : c->deadline_ns);
}

static bool timed_out(struct agent *a, struct conn *c, uint64_t now, const char *message)
{
    if (now < c->deadline_ns)
        return false;
    conn_set_timer(a, c, 0);
    conn_error(a, c, SM_WIRE_E_TIMEOUT, 0, message, NULL);
    return true;
}

void probe_wait_listen(struct agent *a, struct conn *c, const struct sm_wire_wait_listen *m)
{
    if (m->port > 65535) {
        conn_error(a, c, SM_WIRE_E_BAD_VALUE, 0, "no such port", NULL);
        return;
    }
    if (answer_sockets(a, c, m->port, true))
        return;
    uint64_t now = agent_now_ns();
    c->state = CONN_WAIT_LISTEN;
    c->port = m->port;
    c->poll_ms = POLL_MIN_MS;
    c->deadline_ns = now + (uint64_t)m->timeout_ms * 1000000u;
    wait_on(a, c, now, c->poll_ms);
}

/* The sum over all CPUs of the time they were idle, to 10 ms; both numbers of /proc/uptime. */
static bool read_uptime(const char *path, uint64_t *uptime_ns, uint64_t *idle_ns)
{
    char text[64];
    uint64_t v[2] = {0, 0};
    static int fd = -1; /* opened once: a look must not itself be what keeps the guest busy */
    if (fd < 0)
        fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof(text), 0);
    unsigned i = 0;
    for (ssize_t k = 0; k < n; k++) {
        if (text[k] >= '0' && text[k] <= '9')
            v[i] = v[i] * 10 + (uint64_t)(text[k] - '0');
        else if (text[k] == ' ' && ++i > 1)
            return false;
    }
    *uptime_ns = v[0] * 10000000u; /* two decimals were read over */
    *idle_ns = v[1] * 10000000u;
    return i == 1;
}

/* Time that the CPUs were not idle, since boot. */
static bool busy_ns(const struct agent *a, uint64_t *uptime, uint64_t *busy)
{
    uint64_t idle;
    cpu_set_t cpus;
    if (!read_uptime(a->uptime, uptime, &idle) || sched_getaffinity(0, sizeof(cpus), &cpus) != 0)
        return false;
    *busy = *uptime * (uint64_t)CPU_COUNT(&cpus) - idle;
    return true;
}

void probe_wait_idle(struct agent *a, struct conn *c, const struct sm_wire_wait_idle *m)
{
    uint64_t now = agent_now_ns();
    if (!busy_ns(a, &c->sample_ns, &c->sample_busy_ns)) {
        conn_error(a, c, SM_WIRE_E_INTERNAL, errno, "cannot read /proc/uptime", NULL);
        return;
    }
    c->state = CONN_WAIT_IDLE;
    c->quiet_ms = m->quiet_ms < QUIET_MIN_MS ? QUIET_MIN_MS : m->quiet_ms;
    c->deadline_ns = now + (uint64_t)m->timeout_ms * 1000000u;
    wait_on(a, c, now, c->quiet_ms);
}

/* The looks cost the same whatever lies between them, and a multiple of it on a host that is short of
 * CPU time: so the time between them grows until their share is small. */
static void look_idle(struct agent *a, struct conn *c, uint64_t now)
{
    uint64_t uptime, busy;
    if (!busy_ns(a, &uptime, &busy)) {
        conn_set_timer(a, c, 0);
        conn_error(a, c, SM_WIRE_E_INTERNAL, errno, "cannot read /proc/uptime", NULL);
        return;
    }
    uint64_t span = uptime - c->sample_ns;
    int64_t used = (int64_t)(busy - c->sample_busy_ns);
    if (span >= (uint64_t)c->quiet_ms * 950000u && used <= (int64_t)(span / 1000 * IDLE_PERMILLE)) {
        wait_over(a, c);
        conn_put(a, c, SM_WIRE_OK, NULL);
        return;
    }
    if (timed_out(a, c, now, "the guest was not idle in time"))
        return;
    c->sample_ns = uptime;
    c->sample_busy_ns = busy;
    if (c->quiet_ms < QUIET_MAX_MS)
        c->quiet_ms = c->quiet_ms * 2 < QUIET_MAX_MS ? c->quiet_ms * 2 : QUIET_MAX_MS;
    wait_on(a, c, now, c->quiet_ms);
}

/* ---- freezing ----------------------------------------------------------------------------- */

/* All goes on as if nothing had been. */
static void give_up_freeze(struct agent *a)
{
    system_thaw(&(const char *){NULL});
    a->frozen = false;
    exec_outlive(a, false);
}

void probe_abandon(struct agent *a, struct conn *c)
{
    if (c->state == CONN_WAIT_FROZEN)
        give_up_freeze(a);
}

/* True: there is an answer. */
static bool look_frozen(struct agent *a, struct conn *c, uint64_t now)
{
    const char *what = "cannot tell whether all is frozen";
    int rc = system_frozen();
    if (rc > 0) {
        conn_put(a, c, SM_WIRE_OK, NULL);
        return true;
    }
    if (rc == 0 && now < c->deadline_ns)
        return false;
    if (rc < 0) /* either ends the connection, and that the freeze */
        conn_error(a, c, SM_WIRE_E_INTERNAL, -rc, what, NULL);
    else
        conn_error(a, c, SM_WIRE_E_TIMEOUT, 0, "not all processes could be frozen in time", NULL);
    return true;
}

static void freeze_timer(struct agent *a, struct conn *c, uint64_t now)
{
    if (look_frozen(a, c, now))
        wait_over(a, c);
    else
        wait_on(a, c, now, POLL_MIN_MS);
}

void probe_freeze(struct agent *a, struct conn *c, const struct sm_wire_freeze *m)
{
    const char *what = "";
    bool anybody = false;
    int e = system_freeze(&anybody, &what);
    if (e != 0) {
        system_thaw(&(const char *){NULL});
        conn_error(a, c, SM_WIRE_E_INTERNAL, e, what, NULL);
        return;
    }
    if (!anybody) {
        conn_put(a, c, SM_WIRE_OK, NULL);
        return;
    }
    uint64_t now = agent_now_ns();
    a->frozen = true;
    exec_outlive(a, true);
    c->deadline_ns = now + (uint64_t)m->timeout_ms * 1000000u;
    c->state = CONN_WAIT_FROZEN;
    freeze_timer(a, c, now);
}

void probe_timer(struct agent *a, struct conn *c, uint64_t now)
{
    if (c->state == CONN_WATCH) {
        watch_timer(a, c, now);
        return;
    }
    /* That time is nobody's fault in here. The host has its own limit for how long it waits for us. */
    if (now - c->next_ns > LATE_NS)
        c->deadline_ns += now - c->next_ns;
    if (c->state == CONN_WAIT_FROZEN) {
        freeze_timer(a, c, now);
        return;
    }
    if (c->state == CONN_WAIT_IDLE) {
        look_idle(a, c, now);
        return;
    }
    if (answer_sockets(a, c, c->port, true)) {
        wait_over(a, c);
        return;
    }
    if (timed_out(a, c, now, "nothing listened in time"))
        return;
    c->poll_ms = c->poll_ms * 2 > POLL_MAX_MS ? POLL_MAX_MS : c->poll_ms * 2;
    wait_on(a, c, now, c->poll_ms);
}
