/*
 * The agent's loop: one thread, one epoll, no heap. It knows nobody: who watches a descriptor, arms
 * a timer or has something left to do at the end of a turn says which function of his is called.
 *
 * A turn: what happened to descriptors, then children that have ended, then timers that are due,
 * then jobs. What is to be sent waits for the jobs, so that one call sends all that a turn says.
 *
 * Stale events. Objects live in tables, their slots are used again, and one turn's events may be
 * for a slot that an earlier event of the same turn has freed. So an event comes with the index and
 * the generation that its descriptor was registered with, and the one whose it is compares.
 *
 * Cost. Where the guest kernel is emulated a system call takes 0.33 ms, a page fault 1.7 ms. So:
 * sockets are used with MSG_DONTWAIT and need no fcntl, a new connection is read at once, epoll is
 * only told what has changed, buffers come from a stack of hot pages, and nothing is formatted,
 * allocated or looked up that is not needed.
 */
#ifndef SM_AGENT_LOOP_H
#define SM_AGENT_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "wire/wire.h"

/* The object that has this member. */
#define OWNER(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

uint64_t loop_now_ns(void);

/* Blocks SIGCHLD and SIGPIPE. `children` is called in a turn in which some have ended, behind all
 * other events, so that output which was there before the end is seen before the end. -1 and errno
 * on failure. */
int loop_init(void (*children)(void));
/* Until it is stopped: the turn in which that happens is the last. -1 and errno: epoll failed. */
int loop_run(void);
void loop_stop(void);
/* Calls `children` at once, for who cannot go on before those that have ended were waited for. */
void loop_children(void);

/* ---- descriptors -------------------------------------------------------------------------- */

enum {
    LOOP_IN = EPOLLIN,
    LOOP_OUT = EPOLLOUT,
    LOOP_ERROR = EPOLLERR, /* comes unasked */
    LOOP_END = EPOLLHUP,   /* so does this, of what is registered at all */
    LOOP_END_ONCE = EPOLLHUP | EPOLLET,
};

typedef void loop_ready(unsigned index, uint32_t generation, uint32_t events);

struct source {
    int fd;
    uint32_t asked; /* 0: not registered; a close does that, too, unless there is a duplicate */
    uint64_t tag;
};

/* `ready` is called with index (below 2^24) and generation for what is asked for. */
struct source loop_source(int fd, loop_ready *ready, unsigned index, uint32_t generation);
/* These events from now on; 0: none, and it is not registered any more. Costs nothing when the same
 * was asked for before. -1 and errno: nothing has changed. */
int loop_ask(struct source *s, uint32_t events);

/* ---- timers and jobs ---------------------------------------------------------------------- */

/* Fires once, late by `late_ns`; who wants it again arms it again, for later than `now`. */
struct timer {
    struct timer *next;
    uint64_t at_ns; /* 0: not armed */
    void (*fire)(struct timer *t, uint64_t now, uint64_t late_ns);
};

void timer_set(struct timer *t, uint64_t at_ns); /* 0: never */

/* Something to do at the end of the turn, or of the next one if it comes up there: so nobody who
 * always has more to do keeps the others waiting. */
struct job {
    struct job *next;
    bool queued;
    void (*run)(struct job *j);
};

void job_queue(struct job *j); /* once, however often it is called */

/* ---- buffers ------------------------------------------------------------------------------ */

/* Room of an ordinary buffer: the largest data frame, and beyond it small frames that must fit. */
#define BUFFER_ROOM (SM_WIRE_HEADER + SM_WIRE_MAX_DATA + 8192u)

struct buffer {
    struct buffer *next; /* in the stack of free ones */
    uint32_t cap, start, len;
    uint8_t data[];
};

struct buffer *buffer_get(uint32_t room); /* at least; NULL: no memory */
void buffer_put(struct buffer *b);        /* NULL is fine */
static inline uint32_t buffer_tail(const struct buffer *b)
{
    return b->cap - b->start - b->len;
}

/* ---- for the tests ------------------------------------------------------------------------ */

bool loop_is_idle(void); /* nothing is armed, nor queued */
void loop_exit(void);    /* when all else is gone; loop_init may follow */

#endif
