/*
 * The event loop. See loop.h for the rules.
 *
 * Other threads reach the loop's thread through two queues under `lock` (calls, with their caller
 * waiting on `done`, and posts) and one bell that ends epoll_wait. Each turn serves calls first;
 * then, unless paused, posts, due timers, and ONE event of the last epoll_wait, so that a call or a
 * pause gets in between two callbacks and events that were already fetched survive a pause. What is
 * removed is only unlinked and marked dead; it is freed when no fetched event can point to it any
 * more.
 *
 * System calls: epoll_create1, epoll_ctl, epoll_wait, poll.
 */
#include "util/loop.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "util/bell.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/thread.h"

#define EVENTS_PER_WAIT 64
/* events of one sm_loop_turn: an endless exchange must not hang a test */
#define TURN_LIMIT 10000

/* What a watch is told is what epoll tells. */
_Static_assert(
    SM_LOOP_IN == EPOLLIN && SM_LOOP_PRI == EPOLLPRI && SM_LOOP_OUT == EPOLLOUT, "epoll");
_Static_assert(SM_LOOP_ERR == EPOLLERR && SM_LOOP_HUP == EPOLLHUP, "epoll");
_Static_assert(SM_LOOP_EOF == EPOLLRDHUP && SM_LOOP_EDGE == (uint32_t)EPOLLET, "epoll");

enum state { LOOP_FRESH, LOOP_RUNNING, LOOP_STOPPED };

struct sm_loop_watch {
    struct sm_loop *loop;
    int fd;
    bool dead;
    sm_loop_watch_fn *fn;
    void *arg;
    struct sm_loop_watch *next, **link; /* in watches or dead_watches */
};

struct sm_loop_timer {
    struct sm_loop *loop;
    bool armed;
    int64_t due_ms;
    sm_loop_fn *fn;
    void *arg;
    struct sm_loop_timer *next, **link;
};

struct call {
    sm_loop_fn *fn;
    void *arg;
    bool done; /* under the lock */
    struct call *next;
};

struct post {
    sm_loop_fn *fn;
    void *arg;
    struct post *next;
};

struct sm_loop {
    int epoll_fd;
    struct sm_bell wake;
    struct sm_thread thread;

    /* The loop's thread: */
    struct sm_loop_watch *watches, *dead_watches;
    struct sm_loop_timer *timers;
    struct epoll_event events[EVENTS_PER_WAIT];
    int n_events, next_event;
    bool paused;

    pthread_mutex_t direct; /* recursive; serialises callers while no thread runs */
    pthread_mutex_t lock;   /* the rest: */
    pthread_cond_t done;
    enum state state;
    bool stop;
    struct call *calls, **calls_tail;
    struct post *posts, **posts_tail;
    atomic_bool work; /* something may be in the queues; saves taking the lock every turn */
};

int sm_loop_create(struct sm_loop **out, sm_error *err)
{
    struct sm_loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return sm_error_errno(err, ENOMEM, "cannot make an event loop");
    loop->calls_tail = &loop->calls;
    loop->posts_tail = &loop->posts;
    pthread_mutex_init(&loop->lock, NULL);
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&loop->direct, &recursive);
    pthread_mutexattr_destroy(&recursive);
    pthread_cond_init(&loop->done, NULL);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int rc = sm_bell_make(&loop->wake, err);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    if (!rc && (loop->epoll_fd < 0 ||
                   epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, sm_bell_fd(&loop->wake), &ev) < 0))
        rc = sm_error_errno(err, errno, "cannot make an event loop");
    if (rc)
        sm_loop_destroy(loop);
    else
        *out = loop;
    return rc;
}

/* ---- queues of calls and posts -------------------------------------------------------------- */

/* Under the lock. */
static void wake(struct sm_loop *loop)
{
    atomic_store(&loop->work, true);
    if (loop->state == LOOP_RUNNING) /* a thread that starts looks by itself */
        sm_bell_ring(&loop->wake);
}

static void run_calls(struct sm_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    while (loop->calls) {
        struct call *call = loop->calls;
        loop->calls = call->next;
        if (!loop->calls)
            loop->calls_tail = &loop->calls;
        pthread_mutex_unlock(&loop->lock);
        call->fn(call->arg);
        pthread_mutex_lock(&loop->lock);
        call->done = true;
        pthread_cond_broadcast(&loop->done);
    }
    pthread_mutex_unlock(&loop->lock);
}

/* Runs what is queued now, not what those posts queue. */
static void run_posts(struct sm_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    struct post *posts = loop->posts;
    loop->posts = NULL;
    loop->posts_tail = &loop->posts;
    pthread_mutex_unlock(&loop->lock);
    while (posts) {
        struct post *post = posts;
        posts = post->next;
        post->fn(post->arg);
        free(post);
        /* A post may have paused us (through sm_loop_pause): the rest goes back to the front. */
        if (loop->paused && posts) {
            struct post **tail = &posts;
            while (*tail)
                tail = &(*tail)->next;
            pthread_mutex_lock(&loop->lock);
            *tail = loop->posts;
            if (!loop->posts)
                loop->posts_tail = tail;
            loop->posts = posts;
            pthread_mutex_unlock(&loop->lock);
            return;
        }
    }
}

/* With the lock, which is let go meanwhile: the thread runs, and it is another one. */
static void have_called(struct sm_loop *loop, sm_loop_fn *fn, void *arg)
{
    struct call call = {.fn = fn, .arg = arg};
    *loop->calls_tail = &call;
    /* It is out of the queue again before we leave. */
    // cppcheck-suppress autoVariables
    loop->calls_tail = &call.next;
    wake(loop);
    while (!call.done)
        pthread_cond_wait(&loop->done, &loop->lock);
}

/* No thread runs, unless one is started before it is our turn. */
static void call_directly(struct sm_loop *loop, sm_loop_fn *fn, void *arg)
{
    pthread_mutex_lock(&loop->direct);
    pthread_mutex_lock(&loop->lock);
    bool started = loop->state == LOOP_RUNNING;
    if (!started) {
        pthread_mutex_unlock(&loop->lock);
        fn(arg);
    }
    pthread_mutex_unlock(&loop->direct);
    if (started) {
        have_called(loop, fn, arg);
        pthread_mutex_unlock(&loop->lock);
    }
}

void sm_loop_run(struct sm_loop *loop, sm_loop_fn *fn, void *arg)
{
    pthread_mutex_lock(&loop->lock);
    bool running = loop->state == LOOP_RUNNING;
    bool here = running && sm_thread_is_self(&loop->thread);
    if (running && !here)
        have_called(loop, fn, arg);
    pthread_mutex_unlock(&loop->lock);
    if (here)
        fn(arg);
    else if (!running)
        call_directly(loop, fn, arg);
}

int sm_loop_post(struct sm_loop *loop, sm_loop_fn *fn, void *arg, sm_error *err)
{
    struct post *post = malloc(sizeof(*post));
    if (!post)
        return sm_error_errno(err, ENOMEM, "cannot queue work for the event loop");
    *post = (struct post){.fn = fn, .arg = arg};
    pthread_mutex_lock(&loop->lock);
    if (loop->state == LOOP_STOPPED || loop->stop) {
        pthread_mutex_unlock(&loop->lock);
        free(post);
        return sm_error_set(err, SM_ECANCELLED, "the event loop has been stopped");
    }
    *loop->posts_tail = post;
    loop->posts_tail = &post->next;
    wake(loop);
    pthread_mutex_unlock(&loop->lock);
    return 0;
}

static void do_pause(void *arg)
{
    ((struct sm_loop *)arg)->paused = true;
}

static void do_resume(void *arg)
{
    ((struct sm_loop *)arg)->paused = false;
}

void sm_loop_pause(struct sm_loop *loop)
{
    sm_loop_run(loop, do_pause, loop);
}

void sm_loop_resume(struct sm_loop *loop)
{
    sm_loop_run(loop, do_resume, loop);
}

/* ---- watches -------------------------------------------------------------------------------- */

int sm_loop_add(struct sm_loop *loop, int fd, uint32_t events, sm_loop_watch_fn *fn, void *arg,
    struct sm_loop_watch **out, sm_error *err)
{
    sm_loop_check_here(loop);
    struct sm_loop_watch *watch = malloc(sizeof(*watch));
    if (!watch)
        return sm_error_errno(err, ENOMEM, "cannot watch descriptor %d", fd);
    *watch = (struct sm_loop_watch){.loop = loop, .fd = fd, .fn = fn, .arg = arg};
    struct epoll_event ev = {.events = events, .data.ptr = watch};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        int saved = errno;
        free(watch);
        return sm_error_errno(err, saved, "cannot watch descriptor %d", fd);
    }
    watch->next = loop->watches;
    watch->link = &loop->watches;
    if (watch->next)
        watch->next->link = &watch->next;
    loop->watches = watch;
    *out = watch;
    return 0;
}

void sm_loop_modify(struct sm_loop_watch *watch, uint32_t events)
{
    sm_loop_check_here(watch->loop);
    struct epoll_event ev = {.events = events, .data.ptr = watch};
    epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &ev);
}

void sm_loop_remove(struct sm_loop_watch *watch)
{
    if (!watch)
        return;
    struct sm_loop *loop = watch->loop;
    sm_loop_check_here(loop);
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->dead = true;
    *watch->link = watch->next;
    if (watch->next)
        watch->next->link = watch->link;
    watch->next = loop->dead_watches;
    loop->dead_watches = watch;
}

static void free_dead(struct sm_loop *loop)
{
    while (loop->dead_watches) {
        struct sm_loop_watch *watch = loop->dead_watches;
        loop->dead_watches = watch->next;
        free(watch);
    }
}

/* ---- timers --------------------------------------------------------------------------------- */

int sm_loop_timer_create(
    struct sm_loop *loop, sm_loop_fn *fn, void *arg, struct sm_loop_timer **out, sm_error *err)
{
    struct sm_loop_timer *timer = calloc(1, sizeof(*timer));
    if (!timer)
        return sm_error_errno(err, ENOMEM, "cannot make a timer");
    *timer = (struct sm_loop_timer){.loop = loop, .fn = fn, .arg = arg};
    *out = timer;
    return 0;
}

/* Only armed timers are in the list: there are few, so the next one is found by looking at all. */
void sm_loop_timer_arm(struct sm_loop_timer *timer, unsigned delay_ms)
{
    struct sm_loop *loop = timer->loop;
    sm_loop_check_here(loop);
    timer->due_ms = sm_now_ms() + delay_ms;
    if (timer->armed)
        return;
    timer->armed = true;
    timer->next = loop->timers;
    timer->link = &loop->timers;
    if (timer->next)
        timer->next->link = &timer->next;
    loop->timers = timer;
}

void sm_loop_timer_disarm(struct sm_loop_timer *timer)
{
    sm_loop_check_here(timer->loop);
    if (!timer->armed)
        return;
    timer->armed = false;
    *timer->link = timer->next;
    if (timer->next)
        timer->next->link = timer->link;
}

void sm_loop_timer_destroy(struct sm_loop_timer *timer)
{
    if (!timer)
        return;
    sm_loop_timer_disarm(timer);
    free(timer);
}

/* Calls one due timer; returns the milliseconds to the next one (0: there may be more, -1:
 * none). */
static int run_timer(struct sm_loop *loop)
{
    if (!loop->timers)
        return -1;
    int64_t now = sm_now_ms();
    int64_t next = INT64_MAX;
    for (struct sm_loop_timer *t = loop->timers; t; t = t->next) {
        if (t->due_ms <= now) {
            sm_loop_timer_disarm(t);
            t->fn(t->arg); /* may destroy it */
            return 0;
        }
        next = SM_MIN(next, t->due_ms);
    }
    return (int)SM_MIN(next - now, (int64_t)INT_MAX);
}

/* ---- the thread ----------------------------------------------------------------------------- */

static bool next_event(struct sm_loop *loop)
{
    if (loop->next_event >= loop->n_events)
        return false;
    struct epoll_event *ev = &loop->events[loop->next_event++];
    struct sm_loop_watch *watch = ev->data.ptr;
    if (!watch)
        sm_bell_clear(&loop->wake);
    else if (!watch->dead)
        watch->fn(watch->arg, ev->events);
    return true;
}

/* Returns how many there were. */
static int fetch_events(struct sm_loop *loop, int wait_ms)
{
    free_dead(loop);
    int n = epoll_wait(loop->epoll_fd, loop->events, EVENTS_PER_WAIT, wait_ms);
    loop->next_event = 0;
    loop->n_events = n > 0 ? n : 0;
    return loop->n_events;
}

/* Nothing but calls, until there is something to be done. */
static void stand_still(struct sm_loop *loop)
{
    struct pollfd pfd = {.fd = sm_bell_fd(&loop->wake), .events = POLLIN};
    if (poll(&pfd, 1, -1) > 0)
        sm_bell_clear(&loop->wake);
    atomic_store(&loop->work, true); /* posts wait for the resume */
}

static void loop_main(void *arg)
{
    struct sm_loop *loop = arg;
    for (;;) {
        if (atomic_exchange(&loop->work, false)) {
            run_calls(loop);
            if (!loop->paused)
                run_posts(loop);
            pthread_mutex_lock(&loop->lock);
            bool stop = loop->stop;
            pthread_mutex_unlock(&loop->lock);
            if (stop)
                break;
        }
        if (loop->paused) {
            stand_still(loop);
            continue;
        }
        int wait = run_timer(loop);
        if (!next_event(loop))
            fetch_events(loop, atomic_load(&loop->work) ? 0 : wait);
    }
}

void sm_loop_round(struct sm_loop *loop)
{
    if (atomic_exchange(&loop->work, false))
        run_posts(loop);
    int wait = run_timer(loop);
    if (!next_event(loop))
        fetch_events(loop, atomic_load(&loop->work) ? 0 : wait);
}

void sm_loop_turn(struct sm_loop *loop)
{
    for (int i = 0; i < TURN_LIMIT && !loop->paused; i++) {
        if (atomic_exchange(&loop->work, false))
            run_posts(loop);
        int wait = run_timer(loop);
        if (!next_event(loop) && fetch_events(loop, 0) == 0 && wait != 0 &&
            !atomic_load(&loop->work))
            break;
    }
}

int sm_loop_start(struct sm_loop *loop, const char *name, sm_error *err)
{
    pthread_mutex_lock(&loop->direct);
    pthread_mutex_lock(&loop->lock);
    int rc = 0;
    if (loop->state == LOOP_RUNNING) {
        rc = sm_error_set(err, SM_EINVAL, "the event loop runs already");
    } else {
        loop->stop = false;
        atomic_store(&loop->work, true);
        rc = sm_thread_start(&loop->thread, name, loop_main, loop, 0, err);
        if (!rc)
            loop->state = LOOP_RUNNING;
    }
    pthread_mutex_unlock(&loop->lock);
    pthread_mutex_unlock(&loop->direct);
    return rc;
}

void sm_loop_stop(struct sm_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    if (loop->state != LOOP_RUNNING || loop->stop) {
        pthread_mutex_unlock(&loop->lock);
        return;
    }
    loop->stop = true;
    wake(loop);
    pthread_mutex_unlock(&loop->lock);
    sm_thread_join(&loop->thread);
    pthread_mutex_lock(&loop->direct);
    pthread_mutex_lock(&loop->lock);
    loop->state = LOOP_STOPPED;
    pthread_mutex_unlock(&loop->lock);
    run_calls(loop); /* those that came after the thread's last look */
    loop->paused = false;
    run_posts(loop);
    pthread_mutex_unlock(&loop->direct);
}

bool sm_loop_is_here(struct sm_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    bool here = loop->state != LOOP_RUNNING || sm_thread_is_self(&loop->thread);
    pthread_mutex_unlock(&loop->lock);
    return here;
}

void sm_loop_destroy(struct sm_loop *loop)
{
    if (!loop)
        return;
    sm_loop_stop(loop);
    while (loop->posts) { /* never started */
        struct post *post = loop->posts;
        loop->posts = post->next;
        free(post);
    }
    while (loop->watches)
        sm_loop_remove(loop->watches);
    free_dead(loop);
    sm_close(loop->epoll_fd);
    sm_bell_close(&loop->wake);
    pthread_cond_destroy(&loop->done);
    pthread_mutex_destroy(&loop->lock);
    pthread_mutex_destroy(&loop->direct);
    free(loop);
}
