/*
 * Locks on files (flock(2): they die with their holder) that are waited for until a deadline, which
 * flock has not. So they are tried at an interval:
 *
 *     while ((rc = sm_lock_try(fd, LOCK_EX)) == SM_LOCK_TAKEN)
 *         if (!sm_lock_again(deadline, POLL_MS))
 *             return sm_error_set(err, SM_EBUSY, ...);
 *
 * Nothing is kept between two tries: who looks a name up and locks what it leads to does both anew.
 * What it means that somebody has the lock is its caller's to say.
 *
 * System calls elsewhere: flock, clock_nanosleep.
 */
#ifndef SM_UTIL_LOCK_H
#define SM_UTIL_LOCK_H

#include <errno.h>
#include <stdbool.h>
#include <sys/file.h>

#include "util/bytes.h"
#include "util/clock.h"

#define SM_LOCK_TAKEN 1

/* LOCK_SH or LOCK_EX. 0; SM_LOCK_TAKEN; -1: errno. */
static inline int sm_lock_try(int fd, int how)
{
    int rc;
    do
        rc = flock(fd, how | LOCK_NB);
    while (rc != 0 && errno == EINTR); /* a signal says nothing of who has it */
    return rc == 0 ? 0 : errno == EWOULDBLOCK ? SM_LOCK_TAKEN : -1;
}

/* Sleeps until the next try is due, the last one at the deadline. False: that is over. */
static inline bool sm_lock_again(int64_t deadline, int poll_ms)
{
    int left = sm_deadline_left(deadline);
    if (left == 0)
        return false;
    int ms = left < 0 ? poll_ms : SM_MIN(left, poll_ms);
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
    return true;
}

#endif
