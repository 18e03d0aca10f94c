/*
 * What listens in the guest, and is the guest idle.
 *
 * Listeners come from the kernel's socket tables (sock_diag over netlink): four dumps, TCP and UDP
 * for both families. Waiting for one is polling with a growing interval. Idle is what /proc/uptime
 * says: between two looks, quiet_ms apart, the CPUs were idle but for IDLE_PERMILLE of the time.
 */
#include "probe.h"

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

#include "descriptor.h"
#include "util/bytes.h"
#include "wait.h"

#define POLL_MIN_MS 10u
#define POLL_MAX_MS 200u
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
    return close_after(fd, ok);
}

bool probe_look(struct conn *c, struct probe *p, bool tcp_only)
{
    struct buffer *b = conn_room(c, SM_WIRE_HEADER + 4 + p->max * SM_WIRE_SOCKET_SIZE);
    if (!b) {
        conn_error(c, SM_WIRE_E_INTERNAL, ENOMEM, "no memory for the list of sockets", NULL);
        return false;
    }
    p->buffer = b;
    p->frame = b->data + b->start + b->len;
    if (!dump_all(p, tcp_only)) {
        conn_error(c, SM_WIRE_E_INTERNAL, errno, "cannot list sockets", NULL);
        return false;
    }
    return true;
}

void probe_send(struct conn *c, const struct probe *p)
{
    uint32_t len = p->count * SM_WIRE_SOCKET_SIZE;
    sm_wire_data_header(p->frame, SM_WIRE_SOCKETS, 4 + len);
    sm_store_le32(p->frame + SM_WIRE_HEADER, len);
    conn_commit(c, SM_WIRE_HEADER + 4 + len);
}

void probe_drop(struct conn *c, const struct probe *p)
{
    if (p->buffer->len > 0)
        return;
    buffer_put(p->buffer);
    c->out = NULL;
}

/* False: what is waited for is not there yet. */
static bool answer_sockets(struct conn *c, uint32_t port, bool wait)
{
    struct probe p = {.max = SM_WIRE_MAX_SOCKETS, .want = (uint16_t)port};
    if (!probe_look(c, &p, wait))
        return true;
    if (wait && !(port == 0 ? p.any_tcp : p.found)) {
        probe_drop(c, &p);
        return false;
    }
    probe_send(c, &p);
    return true;
}

void probe_listeners(struct conn *c)
{
    answer_sockets(c, 0, false);
}

/* ---- waiting for a listener --------------------------------------------------------------- */

struct wait_listen {
    struct wait wait;
    uint32_t port, poll_ms;
};
_Static_assert(sizeof(struct wait_listen) <= CONN_OWN_BYTES, "fits into a conn");

static void look_for_listener(struct conn *c, uint64_t now, uint64_t late_ns)
{
    struct wait_listen *w = conn_own(c);
    wait_was_late(c, late_ns);
    if (answer_sockets(c, w->port, true)) {
        conn_leave(c);
        return;
    }
    if (wait_timed_out(c, now, "nothing listened in time"))
        return;
    w->poll_ms = w->poll_ms * 2 > POLL_MAX_MS ? POLL_MAX_MS : w->poll_ms * 2;
    wait_next(c, now, w->poll_ms);
}

static const struct conn_user listen_waits = {.timer = look_for_listener};

void probe_wait_listen(struct conn *c, const struct sm_wire_wait_listen *m)
{
    if (m->port > 65535) {
        conn_error(c, SM_WIRE_E_BAD_VALUE, 0, "no such port", NULL);
        return;
    }
    if (answer_sockets(c, m->port, true))
        return;
    uint64_t now = loop_now_ns();
    struct wait_listen *w = conn_own(c);
    wait_begin(c, &listen_waits, now, m->timeout_ms);
    w->port = m->port;
    w->poll_ms = POLL_MIN_MS;
    wait_next(c, now, w->poll_ms);
}

/* ---- waiting for idleness ----------------------------------------------------------------- */

struct wait_idle {
    struct wait wait;
    uint32_t quiet_ms;
    uint64_t uptime_ns, busy_ns; /* at the last look */
};
_Static_assert(sizeof(struct wait_idle) <= CONN_OWN_BYTES, "fits into a conn");

static const char *uptime_path = "/proc/uptime";
static int uptime_fd = -1;

void probe_set_uptime(const char *path)
{
    uptime_path = path;
}

void probe_open(void)
{
    uptime_fd = open(uptime_path, O_RDONLY | O_CLOEXEC);
}

/* The sum over all CPUs of the time they were idle, to 10 ms; both numbers of /proc/uptime. */
static bool read_uptime(uint64_t *uptime_ns, uint64_t *idle_ns)
{
    char text[64];
    uint64_t v[2] = {0, 0};
    if (uptime_fd < 0)
        probe_open();
    ssize_t n = pread(uptime_fd, text, sizeof(text), 0);
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
static bool busy_ns(uint64_t *uptime, uint64_t *busy)
{
    uint64_t idle;
    cpu_set_t cpus;
    if (!read_uptime(uptime, &idle) || sched_getaffinity(0, sizeof(cpus), &cpus) != 0)
        return false;
    *busy = *uptime * (uint64_t)CPU_COUNT(&cpus) - idle;
    return true;
}

/* The looks cost the same whatever lies between them, and a multiple of it on a host that is short
 * of CPU time: so the time between them grows until their share is small. */
static void look_idle(struct conn *c, uint64_t now, uint64_t late_ns)
{
    struct wait_idle *w = conn_own(c);
    uint64_t uptime, busy;
    wait_was_late(c, late_ns);
    if (!busy_ns(&uptime, &busy)) {
        conn_error(c, SM_WIRE_E_INTERNAL, errno, "cannot read /proc/uptime", NULL);
        return;
    }
    uint64_t span = uptime - w->uptime_ns;
    int64_t used = (int64_t)(busy - w->busy_ns);
    if (span >= (uint64_t)w->quiet_ms * 950000u && used <= (int64_t)(span / 1000 * IDLE_PERMILLE)) {
        conn_leave(c);
        conn_put(c, SM_WIRE_OK, NULL);
        return;
    }
    if (wait_timed_out(c, now, "the guest was not idle in time"))
        return;
    w->uptime_ns = uptime;
    w->busy_ns = busy;
    if (w->quiet_ms < QUIET_MAX_MS)
        w->quiet_ms = w->quiet_ms * 2 < QUIET_MAX_MS ? w->quiet_ms * 2 : QUIET_MAX_MS;
    wait_next(c, now, w->quiet_ms);
}

static const struct conn_user idle_waits = {.timer = look_idle};

void probe_wait_idle(struct conn *c, const struct sm_wire_wait_idle *m)
{
    uint64_t now = loop_now_ns();
    struct wait_idle *w = conn_own(c);
    if (!busy_ns(&w->uptime_ns, &w->busy_ns)) {
        conn_error(c, SM_WIRE_E_INTERNAL, errno, "cannot read /proc/uptime", NULL);
        return;
    }
    wait_begin(c, &idle_waits, now, m->timeout_ms);
    w->quiet_ms = m->quiet_ms < QUIET_MIN_MS ? QUIET_MIN_MS : m->quiet_ms;
    wait_next(c, now, w->quiet_ms);
}
