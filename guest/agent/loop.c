/* Epoll, timers, buffers: see loop.h. */
#include "loop.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "system.h"

#define EVENTS_PER_TURN 32
#define KEEP_BUFFERS    4
#define WAIT_MAX_MS     60000

/* What an event is for: generation, index, and whose function. The signals are nobody's. */
#define TAG_SIGNALS UINT64_MAX

static int epoll = -1, signals = -1;
static bool stop;
static void (*children_ended)(void);
static loop_ready *whose[8]; /* one for each kind of object; entered when the first is watched */
static struct timer *timers;
static struct job *jobs;
static struct buffer *free_buffers;
static unsigned n_free_buffers;

uint64_t loop_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- buffers ------------------------------------------------------------------------------ */

struct buffer *buffer_get(uint32_t room)
{
    struct buffer *b = free_buffers;
    if (b && room <= BUFFER_ROOM) {
        free_buffers = b->next;
        n_free_buffers--;
    } else {
        if (room < BUFFER_ROOM)
            room = BUFFER_ROOM;
        b = system_alloc(sizeof(*b) + room);
        if (!b)
            return NULL;
        b->cap = room;
    }
    b->next = NULL;
    b->start = b->len = 0;
    return b;
}

void buffer_put(struct buffer *b)
{
    if (!b)
        return;
    if (b->cap == BUFFER_ROOM && n_free_buffers < KEEP_BUFFERS) {
        b->next = free_buffers;
        free_buffers = b;
        n_free_buffers++;
    } else {
        system_free(b, sizeof(*b) + b->cap);
    }
}

/* ---- descriptors -------------------------------------------------------------------------- */

static unsigned number_of(loop_ready *ready)
{
    unsigned i = 0;
    while (whose[i] && whose[i] != ready)
        i++;
    whose[i] = ready;
    return i;
}

struct source loop_source(int fd, loop_ready *ready, unsigned index, uint32_t generation)
{
    uint64_t tag = (uint64_t)generation << 32 | (uint64_t)index << 8 | number_of(ready);
    return (struct source){.fd = fd, .tag = tag};
}

int loop_ask(struct source *s, uint32_t events)
{
    if (events == s->asked)
        return 0;
    struct epoll_event ev = {.events = events, .data.u64 = s->tag};
    int op = events == 0 ? EPOLL_CTL_DEL : s->asked == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    if (epoll_ctl(epoll, op, s->fd, &ev) != 0)
        return -1;
    s->asked = events;
    return 0;
}

static void dispatch(const struct epoll_event *ev)
{
    uint64_t tag = ev->data.u64;
    whose[tag & 0xff]((unsigned)(tag >> 8) & 0xffffff, (uint32_t)(tag >> 32), ev->events);
}

/* ---- timers and jobs ---------------------------------------------------------------------- */

void timer_set(struct timer *t, uint64_t at_ns)
{
    if (t->at_ns == 0 && at_ns != 0) {
        t->next = timers;
        timers = t;
    } else if (t->at_ns != 0 && at_ns == 0) {
        struct timer **link = &timers;
        while (*link != t)
            link = &(*link)->next;
        *link = t->next;
    }
    t->at_ns = at_ns;
}

/* Milliseconds to the nearest one, rounded up; -1: there is none. */
static int next_timeout(void)
{
    if (!timers)
        return -1;
    uint64_t nearest = UINT64_MAX;
    for (const struct timer *t = timers; t; t = t->next)
        if (t->at_ns < nearest)
            nearest = t->at_ns;
    uint64_t now = loop_now_ns();
    if (nearest <= now)
        return 0;
    uint64_t ms = (nearest - now + 999999) / 1000000;
    return ms > WAIT_MAX_MS ? WAIT_MAX_MS : (int)ms;
}

/* One that fires may disarm any other: the search begins anew. */
static void run_timers(void)
{
    uint64_t now = loop_now_ns();
    struct timer *t;
    do {
        t = timers;
        while (t && t->at_ns > now)
            t = t->next;
        if (t) {
            uint64_t late = now - t->at_ns;
            timer_set(t, 0);
            t->fire(t, now, late);
        }
    } while (t);
}

void job_queue(struct job *j)
{
    if (j->queued)
        return;
    j->queued = true;
    j->next = jobs;
    jobs = j;
}

static void run_jobs(void)
{
    struct job *list = jobs;
    jobs = NULL;
    while (list) {
        struct job *j = list;
        list = j->next;
        j->queued = false;
        j->run(j);
    }
}

/* ---- turns -------------------------------------------------------------------------------- */

int loop_init(void (*children)(void))
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigaddset(&mask, SIGPIPE);
    if (sigprocmask(SIG_BLOCK, &mask, NULL) != 0)
        return -1;
    sigdelset(&mask, SIGPIPE);
    children_ended = children;
    signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (signals < 0 || epoll < 0)
        return -1;
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = TAG_SIGNALS};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, signals, &ev);
}

void loop_children(void)
{
    children_ended();
}

static void run_events(const struct epoll_event *events, int n)
{
    bool children = false;
    for (int i = 0; i < n; i++) {
        if (events[i].data.u64 == TAG_SIGNALS)
            children = true;
        else
            dispatch(&events[i]);
    }
    struct signalfd_siginfo info;
    if (children && read(signals, &info, sizeof(info)) > 0)
        children_ended();
}

int loop_run(void)
{
    stop = false;
    run_jobs();
    while (!stop) {
        struct epoll_event events[EVENTS_PER_TURN];
        int n = epoll_wait(epoll, events, EVENTS_PER_TURN, jobs ? 0 : next_timeout());
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        run_events(events, n);
        if (timers)
            run_timers();
        run_jobs();
    }
    return 0;
}

void loop_stop(void)
{
    stop = true;
}

/* ---- for the tests ------------------------------------------------------------------------ */

bool loop_is_idle(void)
{
    return !timers && !jobs;
}

void loop_exit(void)
{
    close(signals);
    close(epoll);
    signals = epoll = -1;
    while (free_buffers) {
        struct buffer *b = free_buffers;
        free_buffers = b->next;
        system_free(b, sizeof(*b) + b->cap);
    }
    n_free_buffers = 0;
}
