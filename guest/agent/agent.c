/* The loop: epoll, timers, buffers. See agent.h. */
#include "agent.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "system.h"

#define EVENTS_PER_TURN 32
#define KEEP_BUFFERS    4

uint64_t agent_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct buffer *buffer_get(struct agent *a, uint32_t room)
{
    struct buffer *b = a->free_buffers;
    if (b && room <= AGENT_BUFFER_ROOM) {
        a->free_buffers = b->next;
        a->n_free_buffers--;
    } else {
        if (room < AGENT_BUFFER_ROOM)
            room = AGENT_BUFFER_ROOM;
        b = system_alloc(sizeof(*b) + room);
        if (!b)
            return NULL;
        b->cap = room;
    }
    b->next = NULL;
    b->start = b->len = 0;
    return b;
}

void buffer_put(struct agent *a, struct buffer *b)
{
    if (!b)
        return;
    if (b->cap == AGENT_BUFFER_ROOM && a->n_free_buffers < KEEP_BUFFERS) {
        b->next = a->free_buffers;
        a->free_buffers = b;
        a->n_free_buffers++;
    } else {
        system_free(b, sizeof(*b) + b->cap);
    }
}

/* generation, index, kind: what an event was for, and for which user of the slot. */
int agent_watch(struct agent *a, int op, int fd, uint32_t events, enum tag_kind kind,
    unsigned index, uint32_t generation)
{
    struct epoll_event ev = {
        .events = events,
        .data.u64 = (uint64_t)generation << 32 | (uint64_t)index << 8 | kind,
    };
    return epoll_ctl(a->epoll, op, fd, &ev);
}

int agent_init(struct agent *a)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigaddset(&mask, SIGPIPE);
    if (sigprocmask(SIG_BLOCK, &mask, NULL) != 0)
        return -1;
    sigdelset(&mask, SIGPIPE);
    a->listener = -1;
    a->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    a->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (a->signals < 0 || a->epoll < 0)
        return -1;
    return agent_watch(a, EPOLL_CTL_ADD, a->signals, EPOLLIN, TAG_SIGNALS, 0, 0);
}

int agent_listen(struct agent *a, int listener)
{
    a->listener = listener;
    return agent_watch(a, EPOLL_CTL_ADD, listener, EPOLLIN, TAG_LISTENER, 0, 0);
}

int agent_listen_proxy(struct agent *a, int listener)
{
    a->proxy_listener = listener;
    return agent_watch(a, EPOLL_CTL_ADD, listener, EPOLLIN, TAG_PROXY_LISTENER, 0, 0);
}

struct conn *agent_add_conn(struct agent *a, int fd)
{
    for (unsigned i = 0; i < AGENT_MAX_CONNS; i++) {
        struct conn *c = &a->conns[i];
        if (c->state != CONN_FREE)
            continue;
        /* The slot's last user may still be in the list of the dirty. */
        *c = (struct conn){
            .state = CONN_REQUEST,
            .fd = fd,
            .file = -1,
            .generation = c->generation + 1,
            .dirty = c->dirty,
            .next_dirty = c->next_dirty,
        };
        if (i >= a->n_conns)
            a->n_conns = i + 1;
        return c;
    }
    close(fd);
    return NULL;
}

bool agent_trusts(const struct sockaddr_vm *peer)
{
    return peer->svm_family != AF_VSOCK || peer->svm_cid == VMADDR_CID_HOST;
}

int agent_accept(int listener)
{
    struct sockaddr_vm peer = {0};
    socklen_t len = sizeof(peer);
    int fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);
    if (fd < 0 || agent_trusts(&peer))
        return fd;
    close(fd);
    errno = EPERM;
    return -1;
}

/* The host mostly sends its request right behind the connection: it is read at once. */
static void accept_conn(struct agent *a)
{
    int fd = agent_accept(a->listener);
    if (fd < 0)
        return;
    struct conn *c = agent_add_conn(a, fd);
    if (c)
        conn_event(a, c, EPOLLIN);
}

static void dispatch(struct agent *a, const struct epoll_event *ev)
{
    enum tag_kind kind = (enum tag_kind)(ev->data.u64 & 0xff);
    unsigned index = (unsigned)(ev->data.u64 >> 8) & 0xffffff;
    uint32_t generation = (uint32_t)(ev->data.u64 >> 32);

    switch (kind) {
    case TAG_LISTENER:
        accept_conn(a);
        break;
    case TAG_PROXY_LISTENER:
        proxy_accept(a, a->proxy_listener);
        break;
    case TAG_LINK:
        proxy_event(a, index, generation, ev->events);
        break;
    case TAG_SIGNALS:
        break; /* after all others, see agent_run */
    case TAG_CONN:
        if (a->conns[index].state != CONN_FREE && a->conns[index].generation == generation)
            conn_event(a, &a->conns[index], ev->events);
        break;
    case TAG_STDIN:
    case TAG_STDOUT:
    case TAG_STDERR:
        if (a->execs[index].pid != 0 && a->execs[index].generation == generation)
            exec_event(a, &a->execs[index], kind, ev->events);
        break;
    }
}

/* Milliseconds to the nearest deadline, rounded up; -1: there is none. */
static int next_timeout(struct agent *a)
{
    if (a->n_timed == 0)
        return -1;
    uint64_t nearest = UINT64_MAX;
    for (unsigned i = 0; i < a->n_execs; i++) {
        const struct exec *e = &a->execs[i];
        if (e->pid != 0 && e->deadline_ns != 0 && e->deadline_ns < nearest)
            nearest = e->deadline_ns;
    }
    for (unsigned i = 0; i < a->n_conns; i++) {
        const struct conn *c = &a->conns[i];
        if (c->state != CONN_FREE && c->next_ns != 0 && c->next_ns < nearest)
            nearest = c->next_ns;
    }
    if (nearest == UINT64_MAX)
        return -1;
    uint64_t now = agent_now_ns();
    if (nearest <= now)
        return 0;
    uint64_t ms = (nearest - now + 999999) / 1000000;
    return ms > 60000 ? 60000 : (int)ms;
}

static void run_timers(struct agent *a)
{
    uint64_t now = agent_now_ns();
    for (unsigned i = 0; i < a->n_execs; i++) {
        struct exec *e = &a->execs[i];
        if (e->pid != 0 && e->deadline_ns != 0 && e->deadline_ns <= now)
            exec_timer(a, e, now);
    }
    for (unsigned i = 0; i < a->n_conns; i++) {
        struct conn *c = &a->conns[i];
        if (c->state != CONN_FREE && c->next_ns != 0 && c->next_ns <= now)
            probe_timer(a, c, now);
    }
}

/* What a turn has to say goes out in one call per connection. Flushing may make more (an exec that waited for room,
 * a file that is read): that is for the next turn, so that nobody who always has more keeps the others waiting. */
static void flush_all(struct agent *a)
{
    struct conn *list = a->dirty;
    a->dirty = NULL;
    while (list) {
        struct conn *c = list;
        list = c->next_dirty;
        c->dirty = false;
        if (c->state != CONN_FREE)
            conn_flush(a, c);
    }
}

int agent_run(struct agent *a)
{
    flush_all(a);
    while (!a->stop) {
        struct epoll_event events[EVENTS_PER_TURN];
        int timeout = a->dirty ? 0 : next_timeout(a);
        int n = epoll_wait(a->epoll, events, EVENTS_PER_TURN, timeout);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        bool children = false;
        for (int i = 0; i < n; i++) {
            children = children || (events[i].data.u64 & 0xff) == TAG_SIGNALS;
            dispatch(a, &events[i]);
        }
        /* Last, so that output which was there before the end is seen before the end. */
        if (children) {
            struct signalfd_siginfo info;
            if (read(a->signals, &info, sizeof(info)) > 0)
                exec_reap(a);
        }
        if (a->n_timed > 0)
            run_timers(a);
        flush_all(a);
    }
    return 0;
}
