/*
 * Connections: bytes in, frames out of them, one user after the other, answers back. See conn.h.
 *
 * All that a turn has to say on a conn goes out in its job, with one call. There the user is told
 * that the output is empty, and frames that waited for him or for room are looked at.
 */
#include "conn.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host.h"

/* With less output than this waiting, the answer of any request fits behind it. */
#define ANSWER_MARK 4096u

static struct conn conns[CONN_MAX];
static unsigned n_conns; /* slots that were ever used */
static struct source listener;
static const struct conn_user *requests;

/* Only output is left. */
static const struct conn_user ending;
struct ending {
    void (*then)(int fd);
};
_Static_assert(sizeof(struct ending) <= CONN_OWN_BYTES, "fits into a conn");

static void flush(struct job *job);
static void process(struct conn *c);
static void conn_ready(unsigned index, uint32_t generation, uint32_t events);

/* ---- begin and end ------------------------------------------------------------------------ */

void conn_set_timer(struct conn *c, uint64_t when)
{
    timer_set(&c->timer, when);
}

static void fire(struct timer *t, uint64_t now, uint64_t late_ns)
{
    struct conn *c = OWNER(t, struct conn, timer);
    c->user->timer(c, now, late_ns);
}

struct conn *conn_add(int fd)
{
    for (unsigned i = 0; i < CONN_MAX; i++) {
        struct conn *c = &conns[i];
        if (c->user)
            continue;
        /* The job of the slot's last user may still be queued. */
        *c = (struct conn){
            .user = requests,
            .source = loop_source(fd, conn_ready, i, c->generation + 1),
            .generation = c->generation + 1,
            .flush = {.next = c->flush.next, .queued = c->flush.queued, .run = flush},
            .timer.fire = fire,
        };
        if (i >= n_conns)
            n_conns = i + 1;
        return c;
    }
    close(fd);
    return NULL;
}

void conn_serve(int fd)
{
    struct conn *c = conn_add(fd);
    if (c)
        conn_ready((unsigned)(c - conns), c->generation, LOOP_IN);
}

static void listener_ready(unsigned index, uint32_t generation, uint32_t events)
{
    int fd = host_accept(listener.fd);
    if (fd >= 0)
        conn_serve(fd);
}

void conn_init(const struct conn_user *user)
{
    requests = user;
}

int conn_listen(int fd)
{
    listener = loop_source(fd, listener_ready, 0, 0);
    return loop_ask(&listener, LOOP_IN);
}

static void conn_close(struct conn *c)
{
    conn_set_timer(c, 0);
    buffer_put(c->in);
    buffer_put(c->out);
    c->in = c->out = NULL;
    close(c->source.fd);
    c->source.fd = -1;
    c->user = NULL;
}

static void conn_lost(struct conn *c)
{
    if (c->user->lost)
        c->user->lost(c);
    conn_close(c);
}

void conn_take(struct conn *c, const struct conn_user *user)
{
    c->user = user;
}

void conn_leave(struct conn *c)
{
    if (c->user != &ending)
        c->user = requests;
}

void conn_end_then(struct conn *c, void (*then)(int fd))
{
    if (c->user->lost)
        c->user->lost(c);
    conn_set_timer(c, 0);
    c->user = &ending;
    *(struct ending *)conn_own(c) = (struct ending){then};
    job_queue(&c->flush);
}

void conn_end(struct conn *c)
{
    conn_end_then(c, NULL);
}

unsigned conn_count(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < n_conns; i++)
        n += conns[i].user != NULL;
    return n;
}

/* ---- what is waited for ------------------------------------------------------------------- */

/* Does input have somewhere to go? */
static bool takes_frames(const struct conn *c)
{
    return c->user->frame && (c->user != requests || !c->out || c->out->len < ANSWER_MARK);
}

static bool takes_bytes(const struct conn *c)
{
    return c->user != &ending && (!c->in || c->in->len < c->in->cap);
}

/* Asks the loop for what can be dealt with. */
static void update_interest(struct conn *c)
{
    uint32_t want = (takes_bytes(c) ? LOOP_IN : 0u) | (c->blocked ? LOOP_OUT : 0u) | LOOP_END;
    if (loop_ask(&c->source, want) != 0)
        conn_lost(c); /* an epoll that is full cannot be told to the host in a better way */
}

/* ---- output ------------------------------------------------------------------------------- */

struct buffer *conn_room(struct conn *c, uint32_t bytes)
{
    if (!c->out && !(c->out = buffer_get(BUFFER_ROOM)))
        return NULL;
    return buffer_tail(c->out) >= bytes ? c->out : NULL;
}

void conn_commit(struct conn *c, uint32_t bytes)
{
    c->out->len += bytes;
    job_queue(&c->flush);
}

void conn_put(struct conn *c, enum sm_wire_type type, const void *message)
{
    struct buffer *b = conn_room(c, SM_WIRE_HEADER);
    if (b) {
        struct sm_wire_writer w = {.buf = b->data + b->start + b->len, .cap = buffer_tail(b)};
        sm_wire_put(&w, type, message);
        if (!w.failed) {
            conn_commit(c, (uint32_t)w.len);
            return;
        }
    }
    /* Without room for its answer the conn is of no use. */
    conn_end(c);
}

void conn_error(struct conn *c, enum sm_wire_error_kind kind, int errnum, ...)
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
    conn_put(c, SM_WIRE_ERROR, &m);
    conn_end(c);
}

void conn_answer(struct conn *c, int errnum, const char *what)
{
    if (errnum != 0)
        conn_error(c, SM_WIRE_E_INTERNAL, errnum, what, NULL);
    else
        conn_put(c, SM_WIRE_OK, NULL);
}

/* As much as the socket takes. False: the conn is lost. */
static bool send_output(struct conn *c)
{
    c->blocked = false;
    while (c->out && !c->blocked) {
        struct buffer *b = c->out;
        ssize_t n = b->len == 0 ? 0
                                : send(c->source.fd, b->data + b->start, b->len,
                                      MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            return false;
        if (n < 0) {
            c->blocked = true;
            break;
        }
        b->start += (uint32_t)n;
        b->len -= (uint32_t)n;
        if (b->len == 0) {
            buffer_put(b);
            c->out = NULL;
        }
    }
    return true;
}

static void flush(struct job *job)
{
    struct conn *c = OWNER(job, struct conn, flush);
    if (!c->user)
        return; /* closed meanwhile */
    if (!send_output(c)) {
        conn_lost(c);
        return;
    }
    if (!c->blocked && c->user == &ending) {
        const struct ending *end = conn_own(c);
        if (end->then)
            end->then(c->source.fd);
        conn_close(c);
        return;
    }
    if (!c->blocked && c->user->writable)
        c->user->writable(c);
    /* Frames that waited for the user before, or for room. */
    if (!c->blocked)
        process(c);
    if (!c->flush.queued)
        update_interest(c);
}

/* ---- input -------------------------------------------------------------------------------- */

/* Makes room behind the input for the rest of a frame of `whole` bytes. */
static bool grow(struct conn *c, uint32_t whole)
{
    struct buffer *b = c->in;
    if (whole <= b->cap - b->start)
        return true;
    if (whole <= b->cap) {
        memmove(b->data, b->data + b->start, b->len);
        b->start = 0;
        return true;
    }
    struct buffer *bigger = buffer_get(whole);
    if (!bigger)
        return false;
    memcpy(bigger->data, b->data + b->start, b->len);
    bigger->len = b->len;
    buffer_put(b);
    c->in = bigger;
    return true;
}

/* All frames that are there and that the user takes. */
static void process(struct conn *c)
{
    while (c->in && c->in->len > 0 && takes_frames(c)) {
        struct sm_wire_frame f = {.len = 0};
        int rc = sm_wire_parse(c->in->data + c->in->start, c->in->len, &f);
        if (rc == 0) {
            if (grow(c, SM_WIRE_HEADER + f.len))
                return;
            conn_error(c, SM_WIRE_E_INTERNAL, ENOMEM, "no memory for a request", NULL);
            break;
        }
        if (rc < 0 || !c->user->frame(c, &f)) {
            conn_error(c, SM_WIRE_E_PROTOCOL, 0, "unexpected or malformed ",
                sm_wire_type_name(f.type), " frame", NULL);
            break;
        }
        c->in->start += SM_WIRE_HEADER + f.len;
        c->in->len -= SM_WIRE_HEADER + f.len;
    }
    if (c->in && (c->in->len == 0 || c->user == &ending)) {
        buffer_put(c->in);
        c->in = NULL;
    }
}

static void receive(struct conn *c)
{
    if (!c->in && !(c->in = buffer_get(BUFFER_ROOM))) {
        conn_lost(c);
        return;
    }
    struct buffer *b = c->in;
    if (buffer_tail(b) == 0) {
        memmove(b->data, b->data + b->start, b->len);
        b->start = 0;
    }
    ssize_t n = recv(c->source.fd, b->data + b->start + b->len, buffer_tail(b), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        if (b->len == 0) {
            buffer_put(b);
            c->in = NULL;
        }
        return;
    }
    if (n <= 0) {
        conn_lost(c);
        return;
    }
    b->len += (uint32_t)n;
    process(c);
}

static void conn_ready(unsigned index, uint32_t generation, uint32_t events)
{
    struct conn *c = &conns[index];
    if (!c->user || c->generation != generation)
        return; /* of who had the slot before */
    if (events & LOOP_OUT)
        job_queue(&c->flush);
    if (takes_bytes(c)) {
        if (events & (LOOP_IN | LOOP_END | LOOP_ERROR))
            receive(c);
    } else if (events & (LOOP_END | LOOP_ERROR)) {
        conn_lost(c);
    }
    if (c->user && !c->flush.queued)
        update_interest(c);
}
