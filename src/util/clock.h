/*
 * Monotonic time, and deadlines as points of it in milliseconds (SM_NO_DEADLINE: none).
 *
 * System calls: poll.
 */
#ifndef SM_UTIL_CLOCK_H
#define SM_UTIL_CLOCK_H

#include <limits.h>
#include <stdint.h>
#include <time.h>

#define SM_NO_DEADLINE INT64_MAX

static inline uint64_t sm_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline int64_t sm_now_ms(void)
{
    return (int64_t)(sm_now_ns() / 1000000);
}

/* `ms` from now; negative: none. */
static inline int64_t sm_deadline(int64_t ms)
{
    return ms < 0 ? SM_NO_DEADLINE : sm_now_ms() + ms;
}

/* The timeout for poll(2): -1 without a deadline, 0 once it is over. */
static inline int sm_deadline_left(int64_t deadline)
{
    if (deadline == SM_NO_DEADLINE)
        return -1;
    int64_t left = deadline - sm_now_ms();
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

#endif
