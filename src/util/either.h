/*
 * One descriptor for several: it polls readable as long as one of them does, for who has room for
 * one only. They stay the caller's, and are never read through it.
 *
 * System calls elsewhere: epoll_create1, epoll_ctl.
 */
#ifndef SM_UTIL_EITHER_H
#define SM_UTIL_EITHER_H

#include <supermachine.h>

/* *fd is the caller's, close-on-exec. */
int sm_either_make(const int *fds, unsigned n, int *fd, sm_error *err);

#endif
