/*
 * Who is connected on the host's side. See connect.h.
 *
 * System calls of the device thread: socketpair(AF_UNIX), sendto, shutdown, getrandom.
 */
#include "devices/vsock/connect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/loop.h"
#include "util/thread.h"
#include "util/wait.h"

#define TICK_MS   500u
#define BRIDGE_MS 60000u /* a guest with many connections to accept may be slow */

/* A wish to be connected to a guest port: of a thread that waits, or of a socket that is to be
 * bridged. */
struct vsock_connect {
    struct vsock_connects *all;
    uint32_t port;
    struct vsock_connect *next;  /* in waiting, under the lock */
    struct vsock_stream *stream; /* once begun */
    int fd;        /* the caller's end; bridge: its socket, until it is the stream's */
    bool bridge;   /* from malloc, and in bridges: */
    bool stranger; /* counted as such, as long as there is no stream */
    bool say_ok;
    uint8_t first[SM_VSOCK_FIRST], first_len;
    struct vsock_connect *next_bridge;
    int64_t deadline_ms;
    bool done; /* under the lock, as the rest */
    enum sm_code code;
    const char *why;
};

struct vsock_listener {
    uint32_t port;
    sm_vsock_accept_fn *fn;
    void *arg;
    struct vsock_listener *next;
};

static int make_pair(int *ours, int *theirs)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return -1;
    *ours = fds[0];
    *theirs = fds[1];
    return 0;
}

static void tick_later(struct vsock_connects *all)
{
    if (!all->ticking)
        sm_loop_timer_arm(all->timer, TICK_MS);
    all->ticking = true;
}

/* ---- connects -------------------------------------------------------------------------------- */

static void enqueue(struct vsock_connects *all, struct vsock_connect *c)
{
    pthread_mutex_lock(&all->lock);
    *all->waiting_tail = c;
    all->waiting_tail = &c->next;
    pthread_mutex_unlock(&all->lock);
}

static struct vsock_connect *dequeue(struct vsock_connects *all)
{
    pthread_mutex_lock(&all->lock);
    struct vsock_connect *c = all->waiting;
    if (c) {
        all->waiting = c->next;
        if (!all->waiting)
            all->waiting_tail = &all->waiting;
        c->next = NULL;
    }
    pthread_mutex_unlock(&all->lock);
    return c;
}

static void withdraw(struct vsock_connects *all, struct vsock_connect *c)
{
    pthread_mutex_lock(&all->lock);
    struct vsock_connect **link = &all->waiting;
    while (*link && *link != c)
        link = &(*link)->next;
    if (*link) {
        *link = c->next;
        if (!*link)
            all->waiting_tail = link;
    }
    pthread_mutex_unlock(&all->lock);
}

/* The first bytes on this socket: they fit. A client that has gone shows as such by the end of its
 * socket. */
static void say_ok(const struct vsock_stream *s)
{
    char line[sizeof("OK 4294967295\n")];
    int n = snprintf(line, sizeof(line), "OK %u\n", s->host_port);
    if (send(s->fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        shutdown(s->fd, SHUT_RDWR);
}

static void end_bridge(struct vsock_connect *c, enum sm_code code)
{
    struct vsock_connects *all = c->all;
    struct vsock_connect **link = &all->bridges;
    while (*link != c)
        link = &(*link)->next_bridge;
    *link = c->next_bridge;
    all->n_bridges--;
    all->streams->n_strangers -= c->stranger;
    if (code == SM_OK && c->say_ok)
        say_ok(c->stream);
    sm_close(c->fd);
    free(c);
}

/* A vsock_answered_fn; the connect is not there any more afterwards. */
static void done(void *arg, enum sm_code code, const char *why)
{
    struct vsock_connect *c = arg;
    struct vsock_connects *all = c->all;
    if (c->bridge) {
        end_bridge(c, code);
        return;
    }
    pthread_mutex_lock(&all->lock);
    c->code = code;
    c->why = why;
    c->done = true;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
}

static uint32_t free_port(struct vsock_connects *all, uint32_t guest_port)
{
    do {
        all->next_port = (all->next_port + 1) | 1u << 30;
        if (all->next_port == UINT32_MAX)
            all->next_port = 1u << 30;
    } while (sm_vsock_find(all->streams, all->next_port, guest_port));
    return all->next_port;
}

static void begin(struct vsock_connects *all, struct vsock_connect *c)
{
    int ours = -1;
    if (c->bridge) {
        ours = sm_steal_fd(&c->fd);
    } else if (make_pair(&ours, &c->fd) < 0) {
        done(c, SM_ELIMIT, "no socket can be made");
        return;
    }
    struct vsock_stream *s = sm_vsock_stream_create(
        all->streams, free_port(all, c->port), c->port, STREAM_CONNECTING, ours);
    if (!s) {
        done(c, SM_ELIMIT, "too many streams are open");
        return;
    }
    s->answered = done;
    s->answered_arg = c;
    s->stranger = c->stranger;
    c->stranger = false;
    c->stream = s;
    s->first_len = c->first_len;
    memcpy(s->first, c->first, sizeof(s->first));
    s->send = 1u << VSOCK_OP_REQUEST;
    sm_vsock_stream_ready(s);
}

void sm_vsock_connects_begin(struct vsock_connects *all)
{
    sm_loop_check_here(all->loop);
    struct vsock_connect *c;
    while (!all->ended && all->open(all->open_arg) && (c = dequeue(all)))
        begin(all, c);
}

static void fail_waiting(struct vsock_connects *all, enum sm_code code, const char *why)
{
    struct vsock_connect *c;
    while ((c = dequeue(all)))
        done(c, code, why);
}

void sm_vsock_connects_end(struct vsock_connects *all)
{
    sm_loop_check_here(all->loop);
    all->ended = true;
    fail_waiting(all, SM_EGUEST, "the guest has ended");
}

static void begin_waiting(void *arg)
{
    struct vsock_connects *all = arg;
    if (all->ended)
        sm_vsock_connects_end(all);
    sm_vsock_connects_begin(all);
    sm_vsock_pump(all->packets);
}

static void do_cancel(void *arg)
{
    struct vsock_connect *c = arg;
    if (c->done)
        return;
    withdraw(c->all, c);
    if (c->stream) {
        c->stream->answered = NULL;
        sm_vsock_stream_kill(c->stream);
        sm_vsock_pump_later(c->all->packets); /* the loop may be paused */
    }
}

int sm_vsock_connects_wait(
    struct vsock_connects *all, uint32_t port, struct sm_wait *wait, int *fd, sm_error *err)
{
    struct vsock_connect c = {.all = all, .port = port, .fd = -1, .code = SM_ETIMEOUT};
    enqueue(all, &c);
    int rc = sm_loop_post(all->loop, begin_waiting, all, err);
    bool over = rc != 0;
    pthread_mutex_lock(&all->lock);
    while (!c.done && !over) {
        if (sm_cond_wait_until(&all->changed, &all->lock, sm_deadline(sm_wait_slice(wait))))
            continue;
        pthread_mutex_unlock(&all->lock);
        over = sm_wait_over(wait);
        pthread_mutex_lock(&all->lock);
    }
    bool was_done = c.done;
    pthread_mutex_unlock(&all->lock);
    /* `c` is on our stack: we may not leave before the loop has let go of it. */
    if (!was_done)
        sm_loop_run(all->loop, do_cancel, &c);
    if (rc == 0 && c.done && c.code == SM_OK) {
        *fd = c.fd;
        return 0;
    }
    sm_close(c.fd);
    if (rc)
        return sm_error_prefix(err, rc, "cannot connect to port %u of the guest", port);
    if (!c.done)
        return sm_error_prefix(err, sm_wait_failed(wait, err, "no answer"),
            "cannot connect to port %u of the guest", port);
    return sm_error_set(err, c.code, "cannot connect to port %u of the guest: %s", port, c.why);
}

/* ---- listeners ------------------------------------------------------------------------------- */

struct listen_request {
    struct vsock_connects *all;
    struct vsock_listener *fresh;
    uint32_t port;
    sm_error *err;
    int rc;
};

static void do_listen(void *arg)
{
    struct listen_request *r = arg;
    struct vsock_listener **link = &r->all->listeners;
    while (*link && (*link)->port != r->port)
        link = &(*link)->next;
    if (r->fresh && *link) {
        r->rc = sm_error_set(
            r->err, SM_EEXIST, "somebody listens on vsock port %u of the host already", r->port);
    } else if (r->fresh) {
        *link = sm_steal_ptr(&r->fresh);
    } else if (*link) {
        struct vsock_listener *old = *link;
        *link = old->next;
        free(old);
    }
}

int sm_vsock_connects_listen(
    struct vsock_connects *all, uint32_t port, sm_vsock_accept_fn *fn, void *arg, sm_error *err)
{
    struct listen_request r = {.all = all, .port = port, .err = err};
    if (fn) {
        r.fresh = malloc(sizeof(*r.fresh));
        if (!r.fresh)
            return sm_error_errno(err, ENOMEM, "cannot listen on vsock port %u", port);
        *r.fresh = (struct vsock_listener){.port = port, .fn = fn, .arg = arg};
    }
    sm_loop_run(all->loop, do_listen, &r);
    free(r.fresh);
    return r.rc;
}

/* The guest's connection stands. False: it is reset. */
static bool accept_stream(struct vsock_connects *all, struct vsock_stream *s)
{
    s->state = STREAM_ESTABLISHED;
    if (!sm_vsock_stream_establish(s)) {
        sm_vsock_stream_kill(s);
        return false;
    }
    all->packets->stats.accepts++;
    s->send |= 1u << VSOCK_OP_RESPONSE;
    sm_vsock_stream_ready(s);
    return true;
}

static bool accept_here(
    struct vsock_connects *all, struct vsock_stream *s, const struct vsock_listener *listener)
{
    auto_fd accepted = -1;
    if (make_pair(&s->fd, &accepted) < 0)
        return false;
    if (accept_stream(all, s))
        listener->fn(listener->arg, sm_steal_fd(&accepted), s->guest_port);
    return true;
}

/* A vsock_answered_fn: the guest or its stream has gone. */
static void forget_asked(void *arg, enum sm_code code, const char *why)
{
    (void)code;
    (void)why;
    struct vsock_asked *asked = arg;
    asked->stream = NULL;
    asked->all->n_asked--;
}

static bool ask(struct vsock_connects *all, struct vsock_stream *s)
{
    struct vsock_asked *asked = all->asked;
    if (!all->ask || all->n_asked == SM_VSOCK_ASKED)
        return false;
    while (asked->stream)
        asked++;
    *asked = (struct vsock_asked){.all = all,
        .stream = s,
        .ticket = ++all->last_ticket,
        .deadline_ms = sm_deadline(SM_VSOCK_ASKED_MS)};
    all->n_asked++;
    s->answered = forget_asked;
    s->answered_arg = asked;
    tick_later(all);
    all->ask(all->ask_arg, asked->ticket, s->host_port);
    return true;
}

void sm_vsock_connects_lead(struct vsock_connects *all, uint32_t ticket, int fd)
{
    sm_loop_check_here(all->loop);
    struct vsock_asked *asked = all->asked;
    while (asked < all->asked + SM_VSOCK_ASKED && !(asked->stream && asked->ticket == ticket))
        asked++;
    if (asked == all->asked + SM_VSOCK_ASKED) {
        sm_close(fd);
        return;
    }
    struct vsock_stream *s = asked->stream;
    sm_vsock_stream_answer(s, SM_OK, NULL);
    s->fd = fd;
    if (fd >= 0)
        accept_stream(all, s);
    else
        sm_vsock_stream_kill(s);
    sm_vsock_pump_later(all->packets); /* what asks may be serving the guest's packets */
}

bool sm_vsock_connects_accept(void *connects, const struct vsock_header *request)
{
    struct vsock_connects *all = connects;
    const struct vsock_listener *l = all->listeners;
    if (all->ended || !all->open(all->open_arg))
        return false;
    while (l && l->port != request->dst_port)
        l = l->next;
    if (!l && !all->ask)
        return false;
    struct vsock_stream *s = sm_vsock_stream_create(
        all->streams, request->dst_port, request->src_port, STREAM_ASKING, -1);
    if (!s)
        return false;
    s->peer_buf_alloc = request->buf_alloc;
    s->peer_fwd_cnt = request->fwd_cnt;
    bool taken = l ? accept_here(all, s, l) : ask(all, s);
    if (!taken)
        sm_vsock_stream_free(s);
    return taken;
}

/* ---- bridges --------------------------------------------------------------------------------- */

static void end_late_bridges(struct vsock_connects *all, int64_t now)
{
    struct vsock_connect *next;
    for (struct vsock_connect *c = all->bridges; c; c = next) {
        next = c->next_bridge;
        if (c->deadline_ms > now) {
            tick_later(all);
        } else if (c->stream) {
            sm_vsock_stream_kill(c->stream);
        } else {
            withdraw(all, c);
            done(c, SM_ETIMEOUT, "no answer");
        }
    }
}

static void end_late_asked(struct vsock_connects *all, int64_t now)
{
    for (unsigned i = 0; i < SM_VSOCK_ASKED && all->n_asked; i++) {
        struct vsock_asked *asked = &all->asked[i];
        if (asked->stream && asked->deadline_ms > now)
            tick_later(all);
        else if (asked->stream)
            sm_vsock_stream_kill(asked->stream);
    }
}

/* Ends those that take too long. */
static void on_tick(void *arg)
{
    struct vsock_connects *all = arg;
    int64_t now = sm_now_ms();
    all->ticking = false;
    end_late_bridges(all, now);
    end_late_asked(all, now);
    sm_vsock_pump(all->packets);
}

bool sm_vsock_connects_bridge(
    struct vsock_connects *all, int fd, const struct sm_vsock_target *target)
{
    sm_loop_check_here(all->loop);
    struct vsock_connect *c = NULL;
    struct vsock_streams *streams = all->streams;
    if (!all->ended && streams->n + all->n_bridges < streams->max &&
        (!target->stranger || streams->n_strangers < streams->max / 2))
        c = calloc(1, sizeof(*c));
    if (!c) {
        sm_close(fd);
        return false;
    }
    *c = (struct vsock_connect){.all = all,
        .port = target->port,
        .bridge = true,
        .stranger = target->stranger,
        .say_ok = target->say_ok,
        .fd = fd,
        .next_bridge = all->bridges,
        .deadline_ms = sm_deadline(target->timeout_ms ? target->timeout_ms : BRIDGE_MS),
        .first_len = target->first_len};
    memcpy(c->first, target->first, sizeof(c->first));
    all->bridges = c;
    all->n_bridges++;
    streams->n_strangers += target->stranger;
    tick_later(all);
    enqueue(all, c);
    begin_waiting(all);
    return true;
}

/* ---- life ------------------------------------------------------------------------------------ */

int sm_vsock_connects_init(struct vsock_connects *all, sm_error *err)
{
    /* Ports of our own begin anywhere, so that a restored guest does not meet one that it has just
     * seen. */
    uint32_t seed = 0;
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
        seed = 0;
    all->next_port = 1u << 30 | seed >> 2;
    all->waiting_tail = &all->waiting;
    int rc = sm_loop_timer_create(all->loop, on_tick, all, &all->timer, err);
    if (rc)
        return rc;
    sm_cond_init(&all->changed);
    pthread_mutex_init(&all->lock, NULL);
    return 0;
}

void sm_vsock_connects_fini(struct vsock_connects *all)
{
    fail_waiting(all, SM_ECANCELLED, "the machine is being closed");
    sm_loop_timer_destroy(all->timer);
    while (all->listeners) {
        struct vsock_listener *l = all->listeners;
        all->listeners = l->next;
        free(l);
    }
    pthread_cond_destroy(&all->changed);
    pthread_mutex_destroy(&all->lock);
}
