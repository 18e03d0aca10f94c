/*
 * Waiting for a guest on a host that may be busy.
 *
 * Such a wait is bounded by the guest's own time: the time in which its vCPUs ran, and the time in
 * which they had nothing to do. What they spent waiting for a CPU of the host does not count, nor
 * does time in which this process was stopped as a whole. So a guest that hangs, be it halted or in
 * a loop, is given up after the limit however busy the host is, and one that others keep from
 * getting on is not given up.
 *
 * Where the guest's kernel is emulated, time in which it ran counts a fifth: a boot takes 13 s of
 * it where hardware needs less than one, and the emulator suffers most from a busy host.
 *
 * A tick costs a few system calls (open, read, close of /proc/self/task/TID/schedstat) per vCPU; a
 * wait that is over before the first tick none.
 */
#ifndef SM_UTIL_GUEST_WAIT_H
#define SM_UTIL_GUEST_WAIT_H

#include "util/wait.h"

/* What tells the guest's time. */
struct sm_guest_clock {
    /* How long all its vCPUs together have run, and how long they wanted to and had no CPU of the
     * host. */
    void (*cpu_time)(void *arg, uint64_t *ran_ns, uint64_t *waited_ns);
    bool (*is_emulated)(void *arg); /* asked only in doubt: it may take a while to find out */
    void *arg;
};

struct sm_guest_wait {
    struct sm_wait wait; /* first: what functions that wait are given */
    const struct sm_guest_clock *clock;
    int64_t limit_ms;  /* of the guest's time */
    unsigned slowness; /* how much longer everything takes it; 0: not known yet */
    bool counting;     /* the first tick was there: what follows is since then */
    uint64_t tick_ns;  /* the last one */
    uint64_t had_ran_ns, had_waited_ns;
    uint64_t passed_ns, ran_ns, idle_ns;
};

/* From now on. clock NULL (tests): like a deadline. */
void sm_guest_wait_begin(
    struct sm_guest_wait *w, const struct sm_guest_clock *clock, int64_t limit_ms);

/* The same, or by the clock alone if clock_ms is not 0. */
void sm_guest_wait_begin_or(
    struct sm_guest_wait *w, const struct sm_guest_clock *clock, int64_t limit_ms, int clock_ms);

/* What a tick does: all vCPUs together have run and waited for so long at the time `now_ns`. True:
 * the guest's time is over. */
bool sm_guest_wait_account(
    struct sm_guest_wait *w, uint64_t now_ns, uint64_t ran_ns, uint64_t waited_ns);

#endif
