/*
 * Who uses the vsock device on the host: connects and listeners of this process, and sockets that are bridged.
 * See impl.h.
 *
 * A connect is put into `waiting` by its thread; the loop's thread takes it out when connections can be
 * made, makes the stream, and ends it when the guest has answered. Only the loop's thread begins, ends
 * or withdraws connects, so none of them meets another halfway.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "devices/vsock/impl.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/wait.h"

#define TICK_MS   500u
#define BRIDGE_MS 60000u /* a guest with many connections to accept may be slow */

static int make_pair(int *ours, int *theirs)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return -1;
    *ours = fds[0];
    *theirs = fds[1];
    return 0;
}

/* ---- connects -------------------------------------------------------------------------------- */

static void enqueue(struct sm_vsock *vsock, struct vsock_connect *c)
{
    pthread_mutex_lock(&vsock->lock);
    *vsock->waiting_tail = c;
    vsock->waiting_tail = &c->next;
    pthread_mutex_unlock(&vsock->lock);
}

static struct vsock_connect *dequeue(struct sm_vsock *vsock)
{
    pthread_mutex_lock(&vsock->lock);
    struct vsock_connect *c = vsock->waiting;
    if (c) {
        vsock->waiting = c->next;
        if (!vsock->waiting)
            vsock->waiting_tail = &vsock->waiting;
        c->next = NULL;
    }
    pthread_mutex_unlock(&vsock->lock);
    return c;
}

static void withdraw(struct sm_vsock *vsock, struct vsock_connect *c)
{
    pthread_mutex_lock(&vsock->lock);
    struct vsock_connect **link = &vsock->waiting;
    while (*link && *link != c)
        link = &(*link)->next;
    if (*link) {
        *link = c->next;
        if (!*link)
            vsock->waiting_tail = link;
    }
    pthread_mutex_unlock(&vsock->lock);
}

void sm_vsock_connect_done(
    struct sm_vsock *vsock, struct vsock_connect *c, enum sm_code code, const char *why)
{
    struct vsock_stream *s = c->stream;
    if (s)
        s->connect = NULL;
    if (!c->bridge) {
        pthread_mutex_lock(&vsock->lock);
        c->code = code;
        c->why = why;
        c->done = true;
        pthread_cond_broadcast(&vsock->changed);
        pthread_mutex_unlock(&vsock->lock);
        return;
    }
    struct vsock_connect **link = &vsock->bridges;
    while (*link != c)
        link = &(*link)->next_bridge;
    *link = c->next_bridge;
    vsock->n_bridges--;
    vsock->n_strangers -= c->stranger;
    if (code == SM_OK && c->connected)
        c->connected(s->fd, s->host_port);
    sm_close(c->fd);
    free(c);
}

static uint32_t free_port(struct sm_vsock *vsock, uint32_t guest_port)
{
    do {
        vsock->next_port = (vsock->next_port + 1) | 1u << 30;
        if (vsock->next_port == UINT32_MAX)
            vsock->next_port = 1u << 30;
    } while (sm_vsock_find(vsock, vsock->next_port, guest_port));
    return vsock->next_port;
}

static void begin(struct sm_vsock *vsock, struct vsock_connect *c)
{
    int ours = -1;
    if (c->bridge) {
        ours = sm_steal_fd(&c->fd);
    } else if (make_pair(&ours, &c->fd) < 0) {
        sm_vsock_connect_done(vsock, c, SM_ELIMIT, "no socket can be made");
        return;
    }
    struct vsock_stream *s =
        sm_vsock_stream_create(vsock, free_port(vsock, c->port), c->port, STREAM_CONNECTING, ours);
    if (!s) {
        sm_vsock_connect_done(vsock, c, SM_ELIMIT, "too many streams are open");
        return;
    }
    s->connect = c;
    s->stranger = c->stranger;
    c->stranger = false;
    c->stream = s;
    s->first_len = c->first_len;
    memcpy(s->first, c->first, sizeof(s->first));
    s->send = 1u << VSOCK_OP_REQUEST;
    sm_vsock_stream_ready(s);
}

void sm_vsock_host_open(struct sm_vsock *vsock)
{
    struct vsock_connect *c;
    while (sm_vsock_open(vsock) && (c = dequeue(vsock)))
        begin(vsock, c);
}

void sm_vsock_host_fail(struct sm_vsock *vsock, enum sm_code code, const char *why)
{
    struct vsock_connect *c;
    while ((c = dequeue(vsock)))
        sm_vsock_connect_done(vsock, c, code, why);
}

static void begin_waiting(void *arg)
{
    struct sm_vsock *vsock = arg;
    if (vsock->ended)
        sm_vsock_host_fail(vsock, SM_EGUEST, "the guest has ended");
    sm_vsock_host_open(vsock);
    sm_vsock_pump(vsock);
}

struct cancel {
    struct sm_vsock *vsock;
    struct vsock_connect *c;
};

static void do_cancel(void *arg)
{
    struct cancel *cancel = arg;
    struct vsock_connect *c = cancel->c;
    if (c->done)
        return;
    withdraw(cancel->vsock, c);
    if (c->stream) {
        c->stream->connect = NULL;
        sm_vsock_stream_kill(c->stream);
        sm_vsock_pump_later(cancel->vsock); /* the loop may be paused */
    }
}

int sm_vsock_connect(
    struct sm_vsock *vsock, uint32_t port, struct sm_wait *wait, int *fd, sm_error *err)
{
    struct sm_loop *loop = vsock->dev.env.loop;
    struct vsock_connect c = {.port = port, .fd = -1, .code = SM_ETIMEOUT};
    enqueue(vsock, &c);
    int rc = sm_loop_post(loop, begin_waiting, vsock, err);
    bool over = rc != 0;
    pthread_mutex_lock(&vsock->lock);
    while (!c.done && !over) {
        struct timespec until = sm_timespec_in(sm_wait_slice(wait));
        if (pthread_cond_timedwait(&vsock->changed, &vsock->lock, &until) == ETIMEDOUT) {
            pthread_mutex_unlock(&vsock->lock);
            over = sm_wait_over(wait);
            pthread_mutex_lock(&vsock->lock);
        }
    }
    pthread_mutex_unlock(&vsock->lock);
    /* `c` is on our stack: we may not leave before the loop has let go of it. */
    struct cancel cancel = {.vsock = vsock, .c = &c};
    pthread_mutex_lock(&vsock->lock);
    bool done = c.done;
    pthread_mutex_unlock(&vsock->lock);
    if (!done)
        sm_loop_run(loop, do_cancel, &cancel);
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
    struct sm_vsock *vsock;
    struct vsock_listener *fresh;
    uint32_t port;
    sm_error *err;
    int rc;
};

static void do_listen(void *arg)
{
    struct listen_request *r = arg;
    struct vsock_listener **link = &r->vsock->listeners;
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

int sm_vsock_listen(
    struct sm_vsock *vsock, uint32_t port, sm_vsock_accept_fn *fn, void *arg, sm_error *err)
{
    struct listen_request r = {.vsock = vsock, .port = port, .err = err};
    if (fn) {
        r.fresh = malloc(sizeof(*r.fresh));
        if (!r.fresh)
            return sm_error_errno(err, ENOMEM, "cannot listen on vsock port %u", port);
        *r.fresh = (struct vsock_listener){.port = port, .fn = fn, .arg = arg};
    }
    sm_loop_run(vsock->dev.env.loop, do_listen, &r);
    free(r.fresh);
    return r.rc;
}

void sm_vsock_accept_any(struct sm_vsock *vsock, sm_vsock_lead_fn *fn, void *arg)
{
    vsock->lead = fn;
    vsock->lead_arg = arg;
}

int sm_vsock_host_accept(
    struct sm_vsock *vsock, uint32_t port, struct vsock_listener **listener, int *accepted)
{
    struct vsock_listener *l = vsock->listeners;
    while (l && l->port != port)
        l = l->next;
    int fd = -1;
    if (l && make_pair(&fd, accepted) == 0)
        *listener = l;
    else if (!l && vsock->lead)
        fd = vsock->lead(vsock->lead_arg, port);
    return fd;
}

/* ---- bridges --------------------------------------------------------------------------------- */

static void tick_later(struct sm_vsock *vsock)
{
    if (!vsock->bridges_tick)
        sm_loop_timer_arm(vsock->bridge_timer, TICK_MS);
    vsock->bridges_tick = true;
}

/* Ends those that take too long. */
static void on_bridge_timer(void *arg)
{
    struct sm_vsock *vsock = arg;
    int64_t now = sm_now_ms();
    struct vsock_connect *next;
    vsock->bridges_tick = false;
    for (struct vsock_connect *c = vsock->bridges; c; c = next) {
        next = c->next_bridge;
        if (c->deadline_ms > now) {
            tick_later(vsock);
        } else if (c->stream) {
            sm_vsock_stream_kill(c->stream);
        } else {
            withdraw(vsock, c);
            sm_vsock_connect_done(vsock, c, SM_ETIMEOUT, "no answer");
        }
    }
    sm_vsock_pump(vsock);
}

bool sm_vsock_bridge(struct sm_vsock *vsock, int fd, const struct sm_vsock_target *target)
{
    struct vsock_connect *c = NULL;
    if (!vsock->ended && vsock->n_streams + vsock->n_bridges < vsock->max_streams &&
        (!target->stranger || vsock->n_strangers < vsock->max_streams / 2))
        c = calloc(1, sizeof(*c));
    if (!c) {
        sm_close(fd);
        return false;
    }
    *c = (struct vsock_connect){.port = target->port,
        .bridge = true,
        .stranger = target->stranger,
        .connected = target->connected,
        .fd = fd,
        .next_bridge = vsock->bridges,
        .deadline_ms = sm_deadline(target->timeout_ms ? target->timeout_ms : BRIDGE_MS),
        .first_len = target->first_len};
    memcpy(c->first, target->first, sizeof(c->first));
    vsock->bridges = c;
    vsock->n_bridges++;
    vsock->n_strangers += target->stranger;
    tick_later(vsock);
    enqueue(vsock, c);
    begin_waiting(vsock);
    return true;
}

/* ---- life ------------------------------------------------------------------------------------ */

int sm_vsock_host_init(struct sm_vsock *vsock, sm_error *err)
{
    vsock->waiting_tail = &vsock->waiting;
    int rc = sm_loop_timer_create(
        vsock->dev.env.loop, on_bridge_timer, vsock, &vsock->bridge_timer, err);
    if (rc)
        return rc;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    int failed = pthread_cond_init(&vsock->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (failed) {
        sm_loop_timer_destroy(vsock->bridge_timer);
        return sm_error_errno(err, failed, "cannot make the vsock device");
    }
    pthread_mutex_init(&vsock->lock, NULL);
    return 0;
}

void sm_vsock_host_fini(struct sm_vsock *vsock)
{
    sm_vsock_host_fail(vsock, SM_ECANCELLED, "the machine is being closed");
    sm_loop_timer_destroy(vsock->bridge_timer);
    while (vsock->listeners) {
        struct vsock_listener *l = vsock->listeners;
        vsock->listeners = l->next;
        free(l);
    }
    pthread_cond_destroy(&vsock->changed);
    pthread_mutex_destroy(&vsock->lock);
}
