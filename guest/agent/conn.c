/*
 * Connections: bytes in, frames out of them, one request after the other, answers back.
 *
 * Input is parsed where it was received (c->in) and handlers look into it, so a handler never
 * closes its conn: it leaves it in CONN_CLOSING, and the flush at the end of the turn closes it.
 * Input waits while a request is under way that takes none, and while too much output waits.
 */
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "system.h"

/* With less output than this waiting, the answer of any request fits behind it. */
#define ANSWER_MARK 4096u

#define POWER_OFF_LINGER_MS 1000

static void process(struct agent *a, struct conn *c);

static unsigned index_of(const struct agent *a, const struct conn *c)
{
    return (unsigned)(c - a->conns);
}

void conn_set_timer(struct agent *a, struct conn *c, uint64_t when)
{
    a->n_timed += (when != 0) - (c->next_ns != 0);
    c->next_ns = when;
}

void conn_close(struct agent *a, struct conn *c)
{
    conn_set_timer(a, c, 0);
    a->n_watches -= c->state == CONN_WATCH;
    buffer_put(a, c->in);
    buffer_put(a, c->out);
    c->in = c->out = NULL;
    close(c->fd);
    c->fd = -1;
    c->state = CONN_FREE;
}

static void conn_lost(struct agent *a, struct conn *c)
{
    if (c->exec)
        exec_conn_lost(a, c->exec);
    c->exec = NULL;
    file_abandon(a, c);
    probe_abandon(a, c);
    conn_close(a, c);
}

static void mark_dirty(struct agent *a, struct conn *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    c->next_dirty = a->dirty;
    a->dirty = c;
}

void conn_close_after_flush(struct agent *a, struct conn *c)
{
    if (c->exec) /* its command cannot be told of any more, and must not keep the slot's next user for its own */
        exec_conn_lost(a, c->exec);
    c->exec = NULL;
    file_abandon(a, c);
    probe_abandon(a, c);
    conn_set_timer(a, c, 0);
    a->n_watches -= c->state == CONN_WATCH;
    c->state = CONN_CLOSING;
    mark_dirty(a, c);
}

/* Does input have somewhere to go? */
static bool takes_frames(const struct conn *c)
{
    switch (c->state) {
    case CONN_REQUEST:
        return !c->out || c->out->len < ANSWER_MARK;
    case CONN_EXEC:
    case CONN_WRITE_FILE:
        return true;
    default:
        return false;
    }
}

static bool takes_bytes(const struct conn *c)
{
    return c->state != CONN_CLOSING && (!c->in || c->in->len < c->in->cap);
}

/* Asks epoll for what can be dealt with. */
static void update_interest(struct agent *a, struct conn *c)
{
    uint32_t want = (takes_bytes(c) ? EPOLLIN : 0u) | (c->blocked ? EPOLLOUT : 0u) | EPOLLHUP;
    if (want == c->interest)
        return;
    int op = c->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (agent_watch(a, op, c->fd, want, TAG_CONN, index_of(a, c), c->generation) != 0)
        conn_lost(a, c); /* an epoll that is full cannot be told to the host in a better way */
    else
        c->interest = want;
}

/* ---- output ------------------------------------------------------------------------------- */

struct buffer *conn_room(struct agent *a, struct conn *c, uint32_t bytes)
{
    if (!c->out && !(c->out = buffer_get(a, AGENT_BUFFER_ROOM)))
        return NULL;
    return buffer_tail(c->out) >= bytes ? c->out : NULL;
}

void conn_commit(struct agent *a, struct conn *c, uint32_t bytes)
{
    c->out->len += bytes;
    mark_dirty(a, c);
}

void conn_put(struct agent *a, struct conn *c, enum sm_wire_type type, const void *message)
{
    struct buffer *b = conn_room(a, c, SM_WIRE_HEADER);
    if (b) {
        struct sm_wire_writer w = {.buf = b->data + b->start + b->len, .cap = buffer_tail(b)};
        sm_wire_put(&w, type, message);
        if (!w.failed) {
            conn_commit(a, c, (uint32_t)w.len);
            return;
        }
    }
    /* Without room for its answer the conn is of no use. */
    conn_close_after_flush(a, c);
}

void conn_error(struct agent *a, struct conn *c, enum sm_wire_error_kind kind, int errnum, ...)
{
    char text[SM_WIRE_MAX_MESSAGE + 1];
    size_t len = 0;
    const char *part;
    va_list ap;
    va_start(ap, errnum);
    while ((part = va_arg(ap, const char *))) {
        size_t n = strlen(part);
        if (n > sizeof(text) - 1 - len)
            n = sizeof(text) - 1 - len;
        memcpy(text + len, part, n);
        len += n;
    }
    va_end(ap);
    text[len] = 0;
    struct sm_wire_error m = {.kind = kind, .errnum = errnum, .message = text};
    conn_put(a, c, SM_WIRE_ERROR, &m);
    conn_close_after_flush(a, c);
}

void conn_flush(struct agent *a, struct conn *c)
{
    c->blocked = false;
    while (c->out && !c->blocked) {
        struct buffer *b = c->out;
        ssize_t n =
            b->len == 0 ? 0 : send(c->fd, b->data + b->start, b->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                conn_lost(a, c);
                return;
            }
            c->blocked = true;
            break;
        }
        b->start += (uint32_t)n;
        b->len -= (uint32_t)n;
        if (b->len == 0) {
            buffer_put(a, b);
            c->out = NULL;
        }
    }
    if (!c->blocked && c->state == CONN_CLOSING) {
        if (c->power_off) {
            /* What was sent is on its way only when the host has seen it; it answers by closing. */
            struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
            poll(&p, 1, POWER_OFF_LINGER_MS);
            a->stop = true;
        }
        conn_close(a, c);
        return;
    }
    if (!c->blocked && c->state == CONN_EXEC)
        exec_resume(a, c->exec);
    else if (!c->blocked && c->state == CONN_READ_FILE)
        file_read_more(a, c);
    /* Requests that waited for the one before, or for room. */
    if (!c->blocked)
        process(a, c);
    if (!c->dirty)
        update_interest(a, c);
}

/* ---- requests ----------------------------------------------------------------------------- */

static uint64_t realtime_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Answers OK, or ERROR if step is not 0. */
static void answer(struct agent *a, struct conn *c, int errnum, const char *what)
{
    if (errnum != 0)
        conn_error(a, c, SM_WIRE_E_INTERNAL, errnum, what, NULL);
    else
        conn_put(a, c, SM_WIRE_OK, NULL);
}

static bool good_hostname(const char *s)
{
    for (; *s; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
                *s == '-' || *s == '.' || *s == '_'))
            return false;
    return true;
}

static bool good_machine_id(const char *s)
{
    size_t n = 0;
    for (; s[n]; n++)
        if (!((s[n] >= '0' && s[n] <= '9') || (s[n] >= 'a' && s[n] <= 'f')))
            return false;
    return n == 0 || n == 32;
}

static int set_identity(
    struct agent *a, const char *hostname, const char *machine_id, const char **what)
{
    int e = system_set_identity(hostname, machine_id, what);
    if (e == 0 && hostname[0] != 0)
        strcpy(a->hostname, hostname); /* the decoder has bounded it */
    return e;
}

static int thaw(struct agent *a, const char **what)
{
    int e = a->frozen ? system_thaw(what) : 0;
    a->frozen = a->frozen && e != 0;
    return e;
}

static void request_thaw(struct agent *a, struct conn *c)
{
    const char *what = "";
    int e = thaw(a, &what);
    exec_outlive(a, false);
    answer(a, c, e, what);
}

static void request_set_clock(struct agent *a, struct conn *c, const struct sm_wire_set_clock *m)
{
    const char *what = "";
    int e = system_set_clock(m->realtime_ns, &what);
    answer(a, c, e, what);
}

static void request_add_entropy(
    struct agent *a, struct conn *c, const struct sm_wire_add_entropy *m)
{
    const char *what = "";
    if (m->seed.len == 0) {
        conn_error(a, c, SM_WIRE_E_BAD_VALUE, 0, "the seed is empty", NULL);
        return;
    }
    int e = system_add_entropy(m->seed.data, m->seed.len, &what);
    answer(a, c, e, what);
}

static void request_set_identity(
    struct agent *a, struct conn *c, const struct sm_wire_set_identity *m)
{
    const char *what = "";
    if (!good_hostname(m->hostname) || !good_machine_id(m->machine_id)) {
        conn_error(a, c, SM_WIRE_E_BAD_VALUE, 0, "not a host name or not a machine id", NULL);
        return;
    }
    int e = set_identity(a, m->hostname, m->machine_id, &what);
    answer(a, c, e, what);
}

static bool is_address(const struct sm_wire_bytes *b, uint32_t len, bool may_be_none)
{
    return b->len == len || (may_be_none && b->len == 0);
}

static void request_set_network(
    struct agent *a, struct conn *c, const struct sm_wire_set_network *m)
{
    const char *what = "";
    if (!is_address(&m->mac, 6, false) || !is_address(&m->address4, 4, true) ||
        !is_address(&m->gateway4, 4, true) || !is_address(&m->address6, 16, true) ||
        !is_address(&m->gateway6, 16, true) || m->prefix4 > 32 || m->prefix6 > 128) {
        conn_error(a, c, SM_WIRE_E_BAD_VALUE, 0, "not addresses of a network card", NULL);
        return;
    }
    int e = system_set_network(m, &what);
    answer(a, c, e, what);
}

static void request_restore(struct agent *a, struct conn *c, const struct sm_wire_restore *m)
{
    const char *what = "";
    if (m->seed.len == 0 || !good_hostname(m->hostname) || !good_machine_id(m->machine_id)) {
        conn_error(
            a, c, SM_WIRE_E_BAD_VALUE, 0, "no seed, not a host name or not a machine id", NULL);
        return;
    }
    int e = system_add_entropy(m->seed.data, m->seed.len, &what);
    if (e == 0)
        e = system_set_clock(m->realtime_ns, &what);
    if (e == 0)
        e = set_identity(a, m->hostname, m->machine_id, &what);
    if (e == 0) {
        exec_keep(a, m->attach_pid);
        e = thaw(a, &what);
    }
    answer(a, c, e, what);
}

static void request_ping(struct agent *a, struct conn *c, const struct sm_wire_ping *m)
{
    struct sm_wire_pong pong = {
        .cookie = m->cookie,
        .boot_nonce = a->boot_nonce,
        .monotonic_ns = agent_now_ns(),
        .realtime_ns = realtime_ns(),
        .ticks = a->ticks,
    };
    conn_put(a, c, SM_WIRE_PONG, &pong);
}

/* False: no request, or not a well-formed one. */
static bool request(struct agent *a, struct conn *c, const struct sm_wire_frame *f)
{
    union {
        struct sm_wire_ping ping;
        struct sm_wire_exec exec;
        struct sm_wire_attach attach;
        struct sm_wire_write_file write_file;
        struct sm_wire_read_file read_file;
        struct sm_wire_set_clock set_clock;
        struct sm_wire_add_entropy add_entropy;
        struct sm_wire_set_identity set_identity;
        struct sm_wire_restore restore;
        struct sm_wire_wait_listen wait_listen;
        struct sm_wire_wait_idle wait_idle;
        struct sm_wire_freeze freeze;
        struct sm_wire_set_network set_network;
    } m;

    a->ticks++;
    switch (f->type) {
    case SM_WIRE_POWER_OFF:
        c->power_off = true;
        conn_put(a, c, SM_WIRE_OK, NULL);
        conn_close_after_flush(a, c);
        return true;
    case SM_WIRE_LISTENERS:
        probe_listeners(a, c);
        return true;
    case SM_WIRE_THAW:
        request_thaw(a, c);
        return true;
    case SM_WIRE_WATCH:
        watch_start(a, c);
        return true;
    default:
        break;
    }
    if (f->type < SM_WIRE_PING || f->type > SM_WIRE_SET_NETWORK || !sm_wire_get(f, f->type, &m))
        return false;
    switch (f->type) {
    case SM_WIRE_PING:
        request_ping(a, c, &m.ping);
        return true;
    case SM_WIRE_EXEC:
        exec_start(a, c, &m.exec);
        return true;
    case SM_WIRE_ATTACH:
        exec_attach(a, c, &m.attach);
        return true;
    case SM_WIRE_WRITE_FILE:
        file_write_start(a, c, &m.write_file);
        return true;
    case SM_WIRE_READ_FILE:
        file_read_start(a, c, &m.read_file);
        return true;
    case SM_WIRE_SET_CLOCK:
        request_set_clock(a, c, &m.set_clock);
        return true;
    case SM_WIRE_ADD_ENTROPY:
        request_add_entropy(a, c, &m.add_entropy);
        return true;
    case SM_WIRE_SET_IDENTITY:
        request_set_identity(a, c, &m.set_identity);
        return true;
    case SM_WIRE_RESTORE:
        request_restore(a, c, &m.restore);
        return true;
    case SM_WIRE_WAIT_LISTEN:
        probe_wait_listen(a, c, &m.wait_listen);
        return true;
    case SM_WIRE_WAIT_IDLE:
        probe_wait_idle(a, c, &m.wait_idle);
        return true;
    case SM_WIRE_FREEZE:
        probe_freeze(a, c, &m.freeze);
        return true;
    case SM_WIRE_SET_NETWORK:
        request_set_network(a, c, &m.set_network);
        return true;
    default:
        return false;
    }
}

/* ---- input -------------------------------------------------------------------------------- */

static bool frame(struct agent *a, struct conn *c, const struct sm_wire_frame *f)
{
    switch (c->state) {
    case CONN_EXEC:
        return exec_frame(a, c->exec, f);
    case CONN_WRITE_FILE:
        if (f->type != SM_WIRE_DATA)
            return false;
        file_write_data(a, c, f);
        return true;
    default:
        return request(a, c, f);
    }
}

/* Makes room behind the input for the rest of a frame of `whole` bytes. */
static bool grow(struct agent *a, struct conn *c, uint32_t whole)
{
    struct buffer *b = c->in;
    if (whole <= b->cap - b->start)
        return true;
    if (whole <= b->cap) {
        memmove(b->data, b->data + b->start, b->len);
        b->start = 0;
        return true;
    }
    struct buffer *bigger = buffer_get(a, whole);
    if (!bigger)
        return false;
    memcpy(bigger->data, b->data + b->start, b->len);
    bigger->len = b->len;
    buffer_put(a, b);
    c->in = bigger;
    return true;
}

/* All frames that are there and that the state of the conn lets through. */
static void process(struct agent *a, struct conn *c)
{
    while (c->in && c->in->len > 0 && takes_frames(c)) {
        struct sm_wire_frame f = {.len = 0};
        int rc = sm_wire_parse(c->in->data + c->in->start, c->in->len, &f);
        if (rc == 0) {
            if (grow(a, c, SM_WIRE_HEADER + f.len))
                return;
            conn_error(a, c, SM_WIRE_E_INTERNAL, ENOMEM, "no memory for a request", NULL);
            break;
        }
        if (rc < 0 || !frame(a, c, &f)) {
            conn_error(a, c, SM_WIRE_E_PROTOCOL, 0, "unexpected or malformed ",
                sm_wire_type_name(f.type), " frame", NULL);
            break;
        }
        c->in->start += SM_WIRE_HEADER + f.len;
        c->in->len -= SM_WIRE_HEADER + f.len;
    }
    if (c->in && (c->in->len == 0 || c->state == CONN_CLOSING)) {
        buffer_put(a, c->in);
        c->in = NULL;
    }
}

static void receive(struct agent *a, struct conn *c)
{
    if (!c->in && !(c->in = buffer_get(a, AGENT_BUFFER_ROOM))) {
        conn_lost(a, c);
        return;
    }
    struct buffer *b = c->in;
    if (buffer_tail(b) == 0) {
        memmove(b->data, b->data + b->start, b->len);
        b->start = 0;
    }
    ssize_t n = recv(c->fd, b->data + b->start + b->len, buffer_tail(b), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        if (b->len == 0) {
            buffer_put(a, b);
            c->in = NULL;
        }
        return;
    }
    if (n <= 0) {
        conn_lost(a, c);
        return;
    }
    b->len += (uint32_t)n;
    process(a, c);
}

void conn_event(struct agent *a, struct conn *c, uint32_t events)
{
    if (events & EPOLLOUT)
        mark_dirty(a, c);
    if (takes_bytes(c)) {
        if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            receive(a, c);
    } else if (events & (EPOLLHUP | EPOLLERR)) {
        conn_lost(a, c);
    }
    if (c->state != CONN_FREE && !c->dirty)
        update_interest(a, c);
}
