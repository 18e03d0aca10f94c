/*
 * Threads of ours. See thread.h.
 *
 * System calls: clone, set_robust_list, rseq, prctl(PR_SET_NAME),
 * rt_sigaction(SIGCANCEL, SIGSETXID).
 */
#include "util/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"

/* All but what a thread does to itself. */
static void fill_mask(sigset_t *mask)
{
    static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigfillset(mask);
    for (size_t i = 0; i < SM_ARRAY_LEN(own); i++)
        sigdelset(mask, own[i]);
}

static void *begin(void *arg)
{
    struct sm_thread *thread = arg;
    pthread_setname_np(pthread_self(), thread->name);
    thread->fn(thread->arg);
    return NULL;
}

/* 0, or an errno value. */
static int create(struct sm_thread *thread, size_t stack)
{
    sigset_t mask;
    pthread_attr_t attr;
    int e = pthread_attr_init(&attr);
    if (e)
        return e;
    fill_mask(&mask);
    e = pthread_attr_setsigmask_np(&attr, &mask);
    if (!e && stack)
        e = pthread_attr_setstacksize(&attr, stack);
    if (!e)
        e = pthread_create(&thread->id, &attr, begin, thread);
    pthread_attr_destroy(&attr);
    return e;
}

int sm_thread_start(struct sm_thread *thread, const char *name, sm_thread_fn *fn, void *arg,
    size_t stack, sm_error *err)
{
    snprintf(thread->name, sizeof(thread->name), "%.15s", name);
    thread->fn = fn;
    thread->arg = arg;
    int e = create(thread, stack);
    thread->started = !e;
    return e ? sm_error_errno(err, e, "cannot start the thread '%s'", name) : 0;
}

void sm_thread_join(struct sm_thread *thread)
{
    if (thread->started)
        pthread_join(thread->id, NULL);
    thread->started = false;
}

bool sm_thread_is_self(const struct sm_thread *thread)
{
    return pthread_equal(thread->id, pthread_self());
}

void sm_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

bool sm_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline)
{
    if (deadline == SM_NO_DEADLINE)
        return pthread_cond_wait(cond, lock) == 0;
    const struct timespec until = {
        .tv_sec = (time_t)(deadline / 1000), .tv_nsec = (long)(deadline % 1000) * 1000000};
    return pthread_cond_timedwait(cond, lock, &until) != ETIMEDOUT;
}
