/*
 * Who uses the vsock device on the host: connects and listeners of this process, and the front door.
 * See impl.h.
 *
 * A connect is put into `waiting` by its thread; the loop's thread takes it out when connections can be
 * made, makes the stream, and ends it when the guest has answered. Only the loop's thread begins, ends
 * or withdraws connects, so none of them meets another halfway.
 *
 * A client of the front door is looked at with MSG_PEEK until it is known whether it names a port. A whole
 * CONNECT line is taken out, and nothing else: all the rest is data for the guest.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "devices/vsock/impl.h"
#include "util/bytes.h"
#include "util/error.h"
#include "util/wait.h"

#define LINE_BYTES 32u /* "CONNECT vsock:4294967295\r\n" has 26 */
#define BACKLOG    64
#define TICK_MS    500u
#define BRIDGE_MS  60000u /* a guest with many connections to accept may be slow */

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

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
    if (!c->front_door) {
        pthread_mutex_lock(&vsock->lock);
        c->code = code;
        c->why = why;
        c->done = true;
        pthread_cond_broadcast(&vsock->changed);
        pthread_mutex_unlock(&vsock->lock);
        return;
    }
    struct vsock_connect **link = &vsock->door_connects;
    while (*link != c)
        link = &(*link)->door_next;
    *link = c->door_next;
    vsock->n_door_connects--;
    vsock->n_strangers -= c->stranger;
    if (code == SM_OK && c->say_ok) {
        char line[LINE_BYTES];
        int n = snprintf(line, sizeof(line), "OK %u\n", s->host_port);
        /* The first bytes on this socket: they fit. A client that has gone shows as such later. */
        if (send(s->fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            s->host_hup = true;
    }
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
    if (c->front_door) {
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

static int connect_unix(const char *door_path, uint32_t port)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s_%u", door_path, port); /* length checked */
    auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
        return -1;
    return sm_steal_fd(&fd);
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
    else if (!l && vsock->door_leads_out)
        fd = connect_unix(vsock->door_path, port);
    return fd;
}

/* ---- front door ------------------------------------------------------------------------------ */

static void tick_later(struct sm_vsock *vsock)
{
    if (!vsock->door_ticking)
        sm_loop_timer_arm(vsock->door_timer, TICK_MS);
    vsock->door_ticking = true;
}

/* Connects fd, which is taken over. False: too many streams, or the guest has ended. */
static bool connect_through(struct sm_vsock *vsock, int fd, const struct sm_vsock_target *target,
    bool say_ok, bool stranger, uint64_t deadline_ms)
{
    struct vsock_connect *c = NULL;
    if (!vsock->ended && vsock->n_streams + vsock->n_door_connects < vsock->max_streams &&
        (!stranger || vsock->n_strangers < vsock->max_streams / 2))
        c = calloc(1, sizeof(*c));
    if (!c) {
        sm_close(fd);
        return false;
    }
    *c = (struct vsock_connect){.port = target->port,
        .front_door = true,
        .say_ok = say_ok,
        .stranger = stranger,
        .fd = fd,
        .door_next = vsock->door_connects,
        .deadline_ms = deadline_ms,
        .first_len = target->first_len};
    memcpy(c->first, target->first, sizeof(c->first));
    vsock->door_connects = c;
    vsock->n_door_connects++;
    vsock->n_strangers += stranger;
    tick_later(vsock);
    enqueue(vsock, c);
    begin_waiting(vsock);
    return true;
}

/* The slot is free again; returns the socket. */
static int end_handshake(struct vsock_handshake *h)
{
    struct sm_vsock *vsock = h->vsock;
    sm_loop_remove(sm_steal_ptr(&h->watch));
    if (vsock->door_full && vsock->door_watch)
        sm_loop_modify(vsock->door_watch, SM_LOOP_IN);
    vsock->door_full = false;
    return sm_steal_fd(&h->fd);
}

struct wish {
    enum { UNKNOWN, UNNAMED, NAMED, NAMED_VSOCK, WRONG } kind;
    uint32_t port;
    size_t len; /* of the line that says so */
};

/* What the first bytes of a client say; ended: no more will come. */
static struct wish read_wish(const char *line, size_t have, bool ended)
{
    static const char word[] = "CONNECT ", vsock[] = "vsock:";
    const size_t word_len = sizeof(word) - 1, vsock_len = sizeof(vsock) - 1;
    const char *end = memchr(line, '\n', have);
    struct wish wish = {.kind = NAMED};
    if (memcmp(line, word, SM_MIN(have, word_len)) != 0)
        return (struct wish){.kind = UNNAMED};
    if (!end || have < word_len)
        return (struct wish){.kind = ended || have == LINE_BYTES ? UNNAMED : UNKNOWN};
    wish.len = (size_t)(end - line) + 1;
    size_t at = word_len, stop = wish.len - 1;
    if (line[stop - 1] == '\r')
        stop--;
    if (stop - at > vsock_len && memcmp(line + at, vsock, vsock_len) == 0) {
        wish.kind = NAMED_VSOCK;
        at += vsock_len;
    }
    uint64_t value = 0;
    bool good = at < stop;
    for (; good && at < stop; at++) {
        value = value * 10 + (uint64_t)(line[at] - '0');
        good = line[at] >= '0' && line[at] <= '9' && value <= UINT32_MAX;
    }
    wish.port = (uint32_t)value;
    /* More words are another protocol's: a request to an HTTP proxy begins so. */
    if (!good && memchr(line + word_len, ' ', wish.len - word_len))
        return (struct wish){.kind = UNNAMED};
    if (!good)
        wish.kind = WRONG;
    return wish;
}

/* The last that a client hears that has asked for what is no port. */
static void refuse(int fd)
{
    static const char line[] =
        "ERR that is no port; write CONNECT PORT, from 1 to 65535, or CONNECT vsock:PORT\n";
    (void)!send(fd, line, sizeof(line) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    sm_close(fd);
}

enum client {
    CLIENT_SPEAKS,
    CLIENT_SILENT, /* has had its time to say something */
    CLIENT_ENDED,  /* sends no more */
    CLIENT_GONE,   /* nor does it receive */
};

static void look_at(struct vsock_handshake *h, enum client client)
{
    struct sm_vsock *vsock = h->vsock;
    char line[LINE_BYTES];
    ssize_t n = recv(h->fd, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);
    if ((n < 0 && errno != EAGAIN && errno != EINTR) || (n <= 0 && client == CLIENT_GONE)) {
        sm_close(end_handshake(h));
        return;
    }
    size_t have = n > 0 ? (size_t)n : 0;
    struct wish wish = read_wish(line, have, client >= CLIENT_ENDED);
    if (wish.kind == UNKNOWN && client == CLIENT_SILENT && have == 0)
        wish.kind = UNNAMED;
    if (wish.kind == UNKNOWN)
        return;
    struct sm_vsock_target target = {.port = wish.port};
    enum sm_vsock_route route = SM_VSOCK_THERE;
    if (wish.kind == WRONG)
        route = SM_VSOCK_NOWHERE;
    else if (wish.kind != NAMED_VSOCK)
        route = vsock->door_route(vsock->door_route_arg, wish.kind == NAMED, wish.port, &target);
    if (route == SM_VSOCK_NOT_YET)
        return;
    int fd = end_handshake(h);
    bool taken = wish.len == 0 || recv(fd, line, wish.len, MSG_DONTWAIT) == (ssize_t)wish.len;
    if (route == SM_VSOCK_THERE && taken)
        connect_through(vsock, fd, &target, wish.kind == NAMED_VSOCK, false, h->deadline_ms);
    else
        refuse(fd);
}

static void on_handshake(void *arg, uint32_t events)
{
    look_at(arg, events & (SM_LOOP_HUP | SM_LOOP_ERR) ? CLIENT_GONE
                 : events & SM_LOOP_EOF               ? CLIENT_ENDED
                                                      : CLIENT_SPEAKS);
}

/* In the abstract namespace no file mode keeps others out. */
static bool may_enter(const struct sm_vsock *vsock, int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    return vsock->door_is_file || (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
                                      (peer.uid == geteuid() || peer.uid == 0));
}

static void on_door(void *arg, uint32_t events)
{
    (void)events;
    struct sm_vsock *vsock = arg;
    struct vsock_handshake *h = vsock->handshakes;
    while (h < vsock->handshakes + VSOCK_HANDSHAKES && h->fd >= 0)
        h++;
    if (h == vsock->handshakes + VSOCK_HANDSHAKES) {
        vsock->door_full = true;
        sm_loop_modify(vsock->door_watch, 0);
        return;
    }
    // cppcheck-suppress nullPointer
    auto_fd fd = accept4(vsock->door_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
        /* Out of descriptors, most likely: do not spin, look again later. */
        sm_loop_modify(vsock->door_watch, 0);
        tick_later(vsock);
    }
    if (fd < 0 || !may_enter(vsock, fd))
        return;
    h->deadline_ms = now_ms() + VSOCK_HANDSHAKE_MS;
    h->silent_ms = now_ms() + VSOCK_SILENCE_MS;
    if (sm_loop_add(vsock->dev.env.loop, fd, SM_LOOP_IN | SM_LOOP_EOF | SM_LOOP_EDGE, on_handshake,
            h, &h->watch, NULL) == 0)
        h->fd = sm_steal_fd(&fd);
    tick_later(vsock);
}

/* Ends handshakes and connects that take too long, and stops waiting for those that say nothing. */
static void on_door_timer(void *arg)
{
    struct sm_vsock *vsock = arg;
    uint64_t now = now_ms();
    bool more = false;
    vsock->door_ticking = false;
    if (vsock->door_watch && !vsock->door_full)
        sm_loop_modify(vsock->door_watch, SM_LOOP_IN);
    for (unsigned i = 0; i < VSOCK_HANDSHAKES; i++) {
        struct vsock_handshake *h = &vsock->handshakes[i];
        if (h->fd >= 0 && h->deadline_ms <= now)
            sm_close(end_handshake(h));
        else if (h->fd >= 0 && h->silent_ms <= now)
            look_at(h, CLIENT_SILENT);
        more |= h->fd >= 0;
    }
    struct vsock_connect *next;
    for (struct vsock_connect *c = vsock->door_connects; c; c = next) {
        next = c->door_next;
        if (c->deadline_ms > now) {
            more = true;
        } else if (c->stream) {
            sm_vsock_stream_kill(c->stream);
        } else {
            withdraw(vsock, c);
            sm_vsock_connect_done(vsock, c, SM_ETIMEOUT, "no answer");
        }
    }
    sm_vsock_pump(vsock);
    if (more)
        tick_later(vsock);
}

bool sm_vsock_bridge(
    struct sm_vsock *vsock, uint32_t port, int fd, const void *first, size_t len, bool stranger)
{
    struct sm_vsock_target target = {.port = port, .first_len = (uint8_t)len};
    if (len > sizeof(target.first)) {
        sm_close(fd);
        return false;
    }
    memcpy(target.first, first, len);
    return connect_through(vsock, fd, &target, false, stranger, now_ms() + BRIDGE_MS);
}

/* `path` fits into a socket address. Is the directory the caller's alone? */
static bool is_private(const char *path)
{
    char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
    snprintf(dir, sizeof(dir), "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    struct stat st;
    return stat(slash ? dir : ".", &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & 077);
}

struct door {
    struct sm_vsock *vsock;
    char *path;
    bool is_file, leads_out;
    int fd;
    sm_vsock_route_fn *route;
    void *route_arg;
    sm_error *err;
    int rc;
};

static void do_front_door(void *arg)
{
    struct door *d = arg;
    struct sm_vsock *vsock = d->vsock;
    if (vsock->door_path) {
        d->rc = sm_error_set(d->err, SM_EEXIST, "the front door is open: %s", vsock->door_path);
        return;
    }
    d->rc = sm_loop_add(
        vsock->dev.env.loop, d->fd, SM_LOOP_IN, on_door, vsock, &vsock->door_watch, d->err);
    if (d->rc)
        return;
    vsock->door_fd = sm_steal_fd(&d->fd);
    vsock->door_path = sm_steal_ptr(&d->path);
    vsock->door_is_file = d->is_file;
    vsock->door_leads_out = d->leads_out;
    vsock->door_route = d->route;
    vsock->door_route_arg = d->route_arg;
}

/* A socket file is there, and nobody listens on it: it may go. */
static bool remove_dead(const struct sockaddr_un *addr, socklen_t size)
{
    struct stat st;
    auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 && lstat(addr->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
           connect(fd, (const struct sockaddr *)addr, size) < 0 && errno == ECONNREFUSED &&
           unlink(addr->sun_path) == 0;
}

/* The socket file gets the mode that the socket has before the bind. */
static int open_door(struct door *d, const struct sockaddr_un *addr, socklen_t size)
{
    const struct sockaddr *to = (const struct sockaddr *)addr;
    int rc;
    d->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (d->fd < 0 || fchmod(d->fd, 0600) < 0)
        return sm_error_errno(d->err, errno, "cannot open the front door %s", d->path);
    rc = bind(d->fd, to, size);
    if (rc < 0 && errno == EADDRINUSE && d->is_file && remove_dead(addr, size))
        rc = bind(d->fd, to, size);
    if (rc < 0 && errno == EADDRINUSE)
        return sm_error_set(d->err, SM_EBUSY,
            "cannot open the front door %s: it is there already; choose another path", d->path);
    if (rc < 0)
        return sm_error_errno(d->err, errno, "cannot open the front door %s", d->path);
    if (listen(d->fd, BACKLOG) < 0)
        d->rc = sm_error_errno(d->err, errno, "cannot listen on the front door %s", d->path);
    else
        sm_loop_run(d->vsock->dev.env.loop, do_front_door, d);
    rc = d->rc;
    if (rc && d->is_file)
        unlink(addr->sun_path);
    return rc;
}

int sm_vsock_front_door(
    struct sm_vsock *vsock, const char *path, sm_vsock_route_fn *route, void *arg, sm_error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len == 0 || len + sizeof("_4294967295") > sizeof(addr.sun_path))
        return sm_error_set(err, SM_EINVAL,
            "the path of the front door must have 1 to %zu bytes: %s",
            sizeof(addr.sun_path) - sizeof("_4294967295"), path);
    struct door d = {.vsock = vsock,
        .path = strdup(path),
        .is_file = *path != '@',
        .fd = -1,
        .route = route,
        .route_arg = arg,
        .err = err};
    memcpy(addr.sun_path, path, len);
    if (!d.is_file)
        addr.sun_path[0] = '\0';
    d.leads_out = d.is_file && is_private(path);
    int rc = d.path
                 ? open_door(&d, &addr, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len))
                 : sm_error_errno(err, ENOMEM, "cannot open the front door %s", path);
    free(d.path); /* NULL and -1 if the device has taken them */
    sm_close(d.fd);
    return rc;
}

void sm_vsock_shut_front_door(struct sm_vsock *vsock)
{
    for (unsigned i = 0; i < VSOCK_HANDSHAKES; i++)
        sm_close(end_handshake(&vsock->handshakes[i]));
    sm_loop_remove(sm_steal_ptr(&vsock->door_watch));
    sm_close(sm_steal_fd(&vsock->door_fd));
    if (vsock->door_path && vsock->door_is_file)
        unlink(vsock->door_path);
    free(sm_steal_ptr(&vsock->door_path));
    vsock->door_leads_out = false;
}

/* ---- life ------------------------------------------------------------------------------------ */

int sm_vsock_host_init(struct sm_vsock *vsock, sm_error *err)
{
    vsock->door_fd = -1;
    vsock->waiting_tail = &vsock->waiting;
    for (unsigned i = 0; i < VSOCK_HANDSHAKES; i++)
        vsock->handshakes[i] = (struct vsock_handshake){.vsock = vsock, .fd = -1};
    int rc =
        sm_loop_timer_create(vsock->dev.env.loop, on_door_timer, vsock, &vsock->door_timer, err);
    if (rc)
        return rc;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    int failed = pthread_cond_init(&vsock->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (failed) {
        sm_loop_timer_destroy(vsock->door_timer);
        return sm_error_errno(err, failed, "cannot make the vsock device");
    }
    pthread_mutex_init(&vsock->lock, NULL);
    return 0;
}

void sm_vsock_host_fini(struct sm_vsock *vsock)
{
    sm_vsock_host_fail(vsock, SM_ECANCELLED, "the machine is being closed");
    sm_vsock_shut_front_door(vsock);
    sm_loop_timer_destroy(vsock->door_timer);
    while (vsock->listeners) {
        struct vsock_listener *l = vsock->listeners;
        vsock->listeners = l->next;
        free(l);
    }
    pthread_cond_destroy(&vsock->changed);
    pthread_mutex_destroy(&vsock->lock);
}
