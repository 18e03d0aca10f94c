/*
 * Threads of ours take no signal: those are for the program's threads. But what a thread does to itself
 * (a fault) must not be blocked: the kernel would end the process without asking the program's handler.
 */
#ifndef SM_UTIL_SIGNALS_H
#define SM_UTIL_SIGNALS_H

#include <signal.h>

/* What a new thread is to inherit as blocked. */
static inline void sm_signals_fill(sigset_t *set)
{
    static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigfillset(set);
    for (unsigned i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        sigdelset(set, own[i]);
}

#endif
