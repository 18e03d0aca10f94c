/*
 * Threads, and waiting for one another.
 *
 * A thread of ours has an owner that joins it and a name that ps and gdb show, and it takes no
 * signal: those are for the program's threads. But what a thread does to itself (a fault) must not
 * be blocked: the kernel would end the process without asking the program's handler. The mask is an
 * attribute of the new thread, so whoever starts it keeps its own all the time.
 *
 * A struct sm_thread stays where it is until the thread has been joined, since the thread finds its
 * name and function there: a start allocates nothing that the thread would have to free, for which
 * it would make a heap of its own. The thread gives itself its name: from outside that costs 25 us.
 *
 * Whoever waits does so by the clock that nobody sets, until a deadline of util/clock.h.
 */
#ifndef SM_UTIL_THREAD_H
#define SM_UTIL_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

typedef void sm_thread_fn(void *arg);

/* Zeros: none. */
struct sm_thread {
    pthread_t id;
    bool started; /* and not joined; the owner's */
    char name[16];
    sm_thread_fn *fn;
    void *arg;
};

/* Starts fn(arg) on a thread of its own. `name`: what is longer than 15 bytes is cut. `stack`: its
 * bytes; 0: as the system * has it. On failure nothing is to be joined. */
int sm_thread_start(struct sm_thread *thread, const char *name, sm_thread_fn *fn, void *arg,
    size_t stack, sm_error *err);
/* Waits for its end. Harmless when there is none. */
void sm_thread_join(struct sm_thread *thread);
/* Whether the caller is that thread. */
bool sm_thread_is_self(const struct sm_thread *thread);

/* A condition for sm_cond_wait_until. */
void sm_cond_init(pthread_cond_t *cond);
/* As pthread_cond_wait, at the latest until `deadline`: false then. */
bool sm_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline);

#endif
