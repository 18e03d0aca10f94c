/*
 * How long to wait for something: until a point of time, or for as long as somebody who is asked at
 * every tick does not say that it is over (guest_wait.h). Loops that wait take slices:
 *
 *     while (!there) {
 *         poll(..., sm_wait_slice(wait));
 *         if (!there && sm_wait_over(wait))
 *             return sm_wait_failed(wait, err, "the agent did not answer");
 *     }
 *
 * System calls: poll.
 */
#ifndef SM_UTIL_WAIT_H
#define SM_UTIL_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "util/clock.h"
#include "util/error.h"

#define SM_WAIT_TICK_MS 250

struct sm_wait {
    int64_t begin;                      /* as sm_now_ms */
    int64_t deadline;                   /* SM_NO_DEADLINE: none */
    bool (*over)(struct sm_wait *wait); /* NULL: nobody is asked */
    char why[96];                       /* what whoever was asked has to say; "": nothing */
};

/* `ms` from now; negative: for ever. */
static inline struct sm_wait sm_wait_ms(int64_t ms)
{
    return (struct sm_wait){.begin = sm_now_ms(), .deadline = sm_deadline(ms)};
}

/* For poll(2). */
static inline int sm_wait_slice(const struct sm_wait *wait)
{
    int left = sm_deadline_left(wait->deadline);
    return wait->over && (left < 0 || left > SM_WAIT_TICK_MS) ? SM_WAIT_TICK_MS : left;
}

static inline bool sm_wait_over(struct sm_wait *wait)
{
    return sm_deadline_left(wait->deadline) == 0 || (wait->over && wait->over(wait));
}

/* SM_ETIMEOUT: "WHAT within 3.0 s", and why. */
static inline int sm_wait_failed(const struct sm_wait *wait, sm_error *err, const char *what)
{
    return sm_error_set(err, SM_ETIMEOUT, "%s within %.1f s%s", what,
        (double)(sm_now_ms() - wait->begin) / 1e3, wait->why);
}

#endif
