/*
 * Who uses the vsock device on the host: connects and listeners of this process, and the front door.
 * See vsock_impl.h.
 *
 * A connect is put into `waiting` by its thread; the loop's thread takes it out when connections can be
 * made, makes the stream, and ends it when the guest has answered. Only the loop's thread begins, ends
 * or withdraws connects, so none of them meets another halfway.
 *
 * A client of the front door is looked at with MSG_PEEK until its line is complete, and exactly that line is
 * taken out: what follows is already data for the guest.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "devices/vsock_impl.h"
#include "util/bytes.h"
#include "util/error.h"

#define DEFAULT_CONNECT_MS 30000
#define LINE_BYTES         24u /* "CONNECT 4294967295\r\n" has 20 */
#define BACKLOG            64
#define TICK_MS            500u
#define BRIDGE_MS          60000u /* a guest with many connections to accept may be slow */

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
    if (code == SM_OK && !c->bridge) {
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

int sm_vsock_connect(struct sm_vsock *vsock, uint32_t port, int timeout_ms, int *fd, sm_error *err)
{
    struct sm_loop *loop = vsock->dev.env.loop;
    struct vsock_connect c = {.port = port, .fd = -1, .code = SM_ETIMEOUT};
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    if (timeout_ms < 0)
        timeout_ms = DEFAULT_CONNECT_MS;
    deadline.tv_sec += timeout_ms / 1000;
    deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    enqueue(vsock, &c);
    int rc = sm_loop_post(loop, begin_waiting, vsock, err);
    if (rc == 0) {
        pthread_mutex_lock(&vsock->lock);
        while (!c.done &&
               pthread_cond_timedwait(&vsock->changed, &vsock->lock, &deadline) != ETIMEDOUT)
            ;
        pthread_mutex_unlock(&vsock->lock);
    }
    /* `c` is on our stack: we may not leave before the loop has let go of it. */
    struct cancel cancel = {.vsock = vsock, .c = &c};
    pthread_mutex_lock(&vsock->lock);
    bool done = c.done;
    pthread_mutex_unlock(&vsock->lock);
    while (!done && sm_loop_call(loop, do_cancel, &cancel, -1, NULL) != 0)
        ;
    if (rc == 0 && c.done && c.code == SM_OK) {
        *fd = c.fd;
        return 0;
    }
    sm_close(c.fd);
    if (rc)
        return sm_error_prefix(err, rc, "cannot connect to port %u of the guest", port);
    if (!c.done)
        return sm_error_set(err, SM_ETIMEOUT,
            "cannot connect to port %u of the guest: no answer for %d ms", port, timeout_ms);
    return sm_error_set(err, c.code, "cannot connect to port %u of the guest: %s", port, c.why);
}

/* ---- listeners ------------------------------------------------------------------------------- */

struct listen_request {
    struct sm_vsock *vsock;
    struct vsock_listener *new;
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
    if (r->new &&*link) {
        r->rc = sm_error_set(
            r->err, SM_EEXIST, "somebody listens on vsock port %u of the host already", r->port);
    } else if (r->new) {
        *link = sm_steal_ptr(&r->new);
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
        r.new = malloc(sizeof(*r.new));
        if (!r.new)
            return sm_error_errno(err, ENOMEM, "cannot listen on vsock port %u", port);
        *r.new = (struct vsock_listener){.port = port, .fn = fn, .arg = arg};
    }
    int rc = sm_loop_call(vsock->dev.env.loop, do_listen, &r, -1, err);
    free(r.new);
    return rc ? rc : r.rc;
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
    else if (!l && vsock->door_path)
        fd = connect_unix(vsock->door_path, port);
    return fd;
}

/* ---- front door ------------------------------------------------------------------------------ */

static void end_handshake(struct vsock_handshake *h)
{
    sm_loop_remove(h->watch);
    h->watch = NULL;
    sm_close(h->fd);
    h->fd = -1;
}

/* "CONNECT PORT\n" of exactly len bytes. */
static bool parse_connect(const char *line, size_t len, uint32_t *port)
{
    static const char word[] = "CONNECT ";
    size_t at = sizeof(word) - 1;
    if (len > 2 && line[len - 2] == '\r')
        len--;
    if (len <= at + 1 || memcmp(line, word, at) != 0)
        return false;
    uint64_t value = 0;
    for (; at < len - 1; at++) {
        if (line[at] < '0' || line[at] > '9')
            return false;
        value = value * 10 + (uint64_t)(line[at] - '0');
        if (value > UINT32_MAX)
            return false;
    }
    *port = (uint32_t)value;
    return true;
}

static void on_handshake(void *arg, uint32_t events)
{
    struct vsock_handshake *h = arg;
    struct sm_vsock *vsock = h->vsock;
    char line[LINE_BYTES];
    ssize_t n = recv(h->fd, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);
    char *end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
    if (!end) {
        bool more_may_come = n < (ssize_t)sizeof(line) &&
                             !(events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) &&
                             (n > 0 || (n < 0 && errno == EAGAIN));
        if (!more_may_come)
            end_handshake(h);
        return;
    }
    size_t len = (size_t)(end - line) + 1;
    uint32_t port;
    struct vsock_connect *c = NULL;
    if (parse_connect(line, len, &port) && vsock->n_door_connects < VSOCK_HANDSHAKES)
        c = calloc(1, sizeof(*c));
    if (!c || recv(h->fd, line, len, MSG_DONTWAIT) != (ssize_t)len) {
        free(c);
        end_handshake(h);
        return;
    }
    *c = (struct vsock_connect){.port = port,
        .front_door = true,
        .fd = sm_steal_fd(&h->fd),
        .door_next = vsock->door_connects,
        .deadline_ms = h->deadline_ms};
    sm_loop_remove(sm_steal_ptr(&h->watch));
    vsock->door_connects = c;
    vsock->n_door_connects++;
    enqueue(vsock, c);
    begin_waiting(vsock);
}

static void on_door(void *arg, uint32_t events)
{
    (void)events;
    struct sm_vsock *vsock = arg;
    // cppcheck-suppress nullPointer
    auto_fd fd = accept4(vsock->door_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
        /* Out of descriptors, most likely: do not spin, look again later. */
        sm_loop_modify(vsock->door_watch, 0);
        sm_loop_timer_arm(vsock->door_timer, TICK_MS);
    }
    if (fd < 0)
        return;
    for (unsigned i = 0; i < VSOCK_HANDSHAKES; i++) {
        struct vsock_handshake *h = &vsock->handshakes[i];
        if (h->fd >= 0)
            continue;
        h->deadline_ms = now_ms() + VSOCK_HANDSHAKE_MS;
        if (sm_loop_add(vsock->dev.env.loop, fd, (uint32_t)(EPOLLIN | EPOLLRDHUP | EPOLLET),
                on_handshake, h, &h->watch, NULL) == 0)
            h->fd = sm_steal_fd(&fd);
        sm_loop_timer_arm(vsock->door_timer, TICK_MS);
        return;
    }
}

/* Ends handshakes and connects that take too long. */
static void on_door_timer(void *arg)
{
    struct sm_vsock *vsock = arg;
    uint64_t now = now_ms();
    bool more = false;
    for (unsigned i = 0; i < VSOCK_HANDSHAKES; i++) {
        struct vsock_handshake *h = &vsock->handshakes[i];
        if (h->fd >= 0 && h->deadline_ms <= now)
            end_handshake(h);
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
    if (vsock->door_watch)
        sm_loop_modify(vsock->door_watch, EPOLLIN);
    if (more)
        sm_loop_timer_arm(vsock->door_timer, TICK_MS);
}

bool sm_vsock_bridge(
    struct sm_vsock *vsock, uint32_t port, int fd, const void *first, size_t len)
{
    struct vsock_connect *c = NULL;
    if (!vsock->door_timer)
        (void)sm_loop_timer_create(
            vsock->dev.env.loop, on_door_timer, vsock, &vsock->door_timer, NULL);
    if (vsock->door_timer && !vsock->ended && len <= SM_VSOCK_FIRST &&
        vsock->n_streams + vsock->n_door_connects < vsock->max_streams)
        c = calloc(1, sizeof(*c));
    if (!c) {
        sm_close(fd);
        return false;
    }
    *c = (struct vsock_connect){.port = port, .front_door = true, .bridge = true, .fd = fd,
        .door_next = vsock->door_connects, .deadline_ms = now_ms() + BRIDGE_MS,
        .first_len = (uint8_t)len};
    memcpy(c->first, first, len);
    vsock->door_connects = c;
    vsock->n_door_connects++;
    sm_loop_timer_arm(vsock->door_timer, TICK_MS);
    enqueue(vsock, c);
    begin_waiting(vsock);
    return true;
}

/* `path` fits into a socket address. */
static int check_directory(const char *path, sm_error *err)
{
    char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
    snprintf(dir, sizeof(dir), "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    struct stat st;
    if (stat(slash ? dir : ".", &st) < 0)
        return sm_error_errno(err, errno, "cannot open the front door %s", path);
    if (st.st_uid != geteuid() || (st.st_mode & 077))
        return sm_error_set(err, SM_EPERM,
            "the directory of the front door %s must be yours and have mode 0700", path);
    return 0;
}

struct door_request {
    struct sm_vsock *vsock;
    char *path;
    int fd;
    sm_error *err;
    int rc;
};

static void do_front_door(void *arg)
{
    struct door_request *r = arg;
    struct sm_vsock *vsock = r->vsock;
    if (vsock->door_path) {
        r->rc = sm_error_set(r->err, SM_EEXIST, "the front door is open: %s", vsock->door_path);
        return;
    }
    if (!vsock->door_timer)
        r->rc = sm_loop_timer_create(
            vsock->dev.env.loop, on_door_timer, vsock, &vsock->door_timer, r->err);
    if (r->rc == 0)
        r->rc = sm_loop_add(
            vsock->dev.env.loop, r->fd, EPOLLIN, on_door, vsock, &vsock->door_watch, r->err);
    if (r->rc == 0) {
        vsock->door_fd = sm_steal_fd(&r->fd);
        vsock->door_path = sm_steal_ptr(&r->path);
    }
}

int sm_vsock_front_door(struct sm_vsock *vsock, const char *path, sm_error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len == 0 || len + sizeof("_4294967295") > sizeof(addr.sun_path))
        return sm_error_set(err, SM_EINVAL,
            "the path of the front door must have 1 to %zu bytes: %s",
            sizeof(addr.sun_path) - sizeof("_4294967295"), path);
    memcpy(addr.sun_path, path, len + 1);
    int rc = check_directory(path, err);
    if (rc)
        return rc;
    struct door_request r = {.vsock = vsock,
        .path = strdup(path),
        .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
        .err = err};
    if (!r.path || r.fd < 0 || bind(r.fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
        rc = sm_error_errno(err, errno, "cannot open the front door %s", path);
    } else {
        if (listen(r.fd, BACKLOG) < 0)
            rc = sm_error_errno(err, errno, "cannot listen on the front door %s", path);
        else
            rc = sm_loop_call(vsock->dev.env.loop, do_front_door, &r, -1, err);
        rc = rc ? rc : r.rc;
        if (rc)
            unlink(path);
    }
    free(r.path); /* NULL and -1 if the device has taken them */
    sm_close(r.fd);
    return rc;
}

/* ---- life ------------------------------------------------------------------------------------ */

int sm_vsock_host_init(struct sm_vsock *vsock, sm_error *err)
{
    vsock->door_fd = -1;
    vsock->waiting_tail = &vsock->waiting;
    for (unsigned i = 0; i < VSOCK_HANDSHAKES; i++)
        vsock->handshakes[i] = (struct vsock_handshake){.vsock = vsock, .fd = -1};
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    int failed = pthread_cond_init(&vsock->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (failed)
        return sm_error_errno(err, failed, "cannot make the vsock device");
    pthread_mutex_init(&vsock->lock, NULL);
    return 0;
}

void sm_vsock_host_fini(struct sm_vsock *vsock)
{
    sm_vsock_host_fail(vsock, SM_ECANCELLED, "the machine is being closed");
    for (unsigned i = 0; i < VSOCK_HANDSHAKES; i++)
        end_handshake(&vsock->handshakes[i]);
    sm_loop_timer_destroy(vsock->door_timer);
    sm_loop_remove(vsock->door_watch);
    sm_close(vsock->door_fd);
    if (vsock->door_path)
        unlink(vsock->door_path);
    free(vsock->door_path);
    while (vsock->listeners) {
        struct vsock_listener *l = vsock->listeners;
        vsock->listeners = l->next;
        free(l);
    }
    pthread_cond_destroy(&vsock->changed);
    pthread_mutex_destroy(&vsock->lock);
}
