/*
 * An event loop: one thread that waits for events, and on which all happens that comes of them. A
 * machine has one for its devices, and a VM's client may have one of its own.
 *
 * Threads:
 * - Watches (sm_loop_add and on) and timers are touched on the loop's thread only, or by anybody as
 *   long as the thread is not running (before sm_loop_start, after sm_loop_stop). A build that
 *   checks (see sm_loop_check_here) ends the process where that is not so.
 * - sm_loop_run, sm_loop_post, sm_loop_pause and sm_loop_resume may be used from every thread.
 *   sm_loop_run on the loop's thread, or while the thread is not running, calls at once.
 * - Callbacks must not block: everything else on the loop waits for them. So sm_loop_run needs no
 *   time limit and cannot fail.
 *
 * A watch or timer may be removed inside any callback, its own too: its callback is not called
 * again from that moment on, and the memory goes away after the running round of events.
 *
 * Pause is for capture: from the return of sm_loop_pause to sm_loop_resume no watch, timer or post
 * runs, so nothing changes guest memory or device state; sm_loop_run is still served.
 * Edge-triggered events (SM_LOOP_EDGE) are not lost by it.
 */
#ifndef SM_UTIL_LOOP_H
#define SM_UTIL_LOOP_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include <supermachine.h>

#include "util/cleanup.h"

struct sm_loop;
struct sm_loop_watch;
struct sm_loop_timer;

/* What a watch waits for, and is told. */
#define SM_LOOP_IN   0x001u      /* there is something to read, or to accept */
#define SM_LOOP_PRI  0x002u      /* there is urgent data */
#define SM_LOOP_OUT  0x004u      /* there is room to write */
#define SM_LOOP_ERR  0x008u      /* an error; always told */
#define SM_LOOP_HUP  0x010u      /* the other end has closed; always told */
#define SM_LOOP_EOF  0x2000u     /* the other end sends no more */
#define SM_LOOP_EDGE 0x80000000u /* tell what has become so, not what still is */

typedef void sm_loop_watch_fn(void *arg, uint32_t events); /* SM_LOOP_* */
typedef void sm_loop_fn(void *arg);

/* Creates a loop; its thread does not run yet. */
int sm_loop_create(struct sm_loop **loop, sm_error *err);

/* Starts the thread, all signals blocked. `name` (at most 15 bytes) is what ps and gdb show. */
int sm_loop_start(struct sm_loop *loop, const char *name, sm_error *err);

/* Lets the running callback and all posts made so far finish, and joins the thread. Harmless when
 * it does not run. Never from the loop's thread. */
void sm_loop_stop(struct sm_loop *loop);

/* Stops, and frees the loop and the watches that are left; their descriptors are not closed. Timers
 * must have been destroyed by their owners. */
void sm_loop_destroy(struct sm_loop *loop);
SM_DEFINE_CLEANUP(struct sm_loop *, sm_loop_destroy)

/* Without a thread: does everything that is due, and what comes of it, on the caller's; does not
 * wait. For tests and fuzz targets, which want every step in their own hands. */
void sm_loop_turn(struct sm_loop *loop);

/* Without a thread: waits until something is due, and does it on the caller's: for a process whose
 * one thread is the loop's. */
void sm_loop_round(struct sm_loop *loop);

/* True on the loop's thread, and on every thread while the loop's thread does not run. */
bool sm_loop_is_here(struct sm_loop *loop);

/* At the head of functions that are for the loop's thread only. Looked at in builds for tests
 * (ASan, TSan, fuzzing); a release is built with NDEBUG and pays nothing, nor does a library of
 * ours end the process of its user. */
#ifdef NDEBUG
#define sm_loop_check_here(loop) ((void)(loop))
#else
#define sm_loop_check_here(loop) assert(sm_loop_is_here(loop))
#endif

/* Calls fn(arg, events) when fd has one of `events`. The descriptor stays the caller's and must be
 * open until the removal. */
int sm_loop_add(struct sm_loop *loop, int fd, uint32_t events, sm_loop_watch_fn *fn, void *arg,
    struct sm_loop_watch **watch, sm_error *err);
void sm_loop_modify(struct sm_loop_watch *watch, uint32_t events);
void sm_loop_remove(struct sm_loop_watch *watch); /* NULL: nothing */

/* A one-shot timer, not armed; may be made on any thread. Arming again moves it. */
int sm_loop_timer_create(
    struct sm_loop *loop, sm_loop_fn *fn, void *arg, struct sm_loop_timer **timer, sm_error *err);
void sm_loop_timer_arm(struct sm_loop_timer *timer, unsigned delay_ms);
void sm_loop_timer_disarm(struct sm_loop_timer *timer);
void sm_loop_timer_destroy(struct sm_loop_timer *timer); /* NULL: nothing */

/* Runs fn(arg) on the loop's thread and returns after it has. */
void sm_loop_run(struct sm_loop *loop, sm_loop_fn *fn, void *arg);

/* Queues fn(arg) for the loop's thread; before sm_loop_start: until the start. SM_ECANCELLED: the
 * loop was stopped. Posts run in the order they were made. */
int sm_loop_post(struct sm_loop *loop, sm_loop_fn *fn, void *arg, sm_error *err);

/* See above. Pauses do not nest. Waits for the callback that runs. */
void sm_loop_pause(struct sm_loop *loop);
void sm_loop_resume(struct sm_loop *loop);

#endif
