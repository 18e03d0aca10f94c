/*
 * The lists of system calls, one for each role that a process or a thread of ours has. They are
 * made from the lines "System calls" of the code by scripts/system-calls, which knows from the
 * table `roles` whose lines belong to a role.
 *
 * What libc calls by itself in any of them is here. System calls: brk, mmap, munmap, mremap,
 * mprotect, madvise, futex, getpid, gettid, clock_gettime, getrandom, sched_getaffinity,
 * restart_syscall, rt_sigreturn, rt_sigprocmask, close, exit, exit_group, openat(refused). (malloc
 * asks /proc/sys/vm/overcommit_memory before it gives memory back, and does without.)
 */
#ifndef SM_SANDBOX_CALLS_H
#define SM_SANDBOX_CALLS_H

#include "sandbox/sandbox.h"

extern const struct sm_sandbox_calls sm_calls_machine_setup;
extern const struct sm_sandbox_calls sm_calls_machine_run;
extern const struct sm_sandbox_calls sm_calls_machine_vcpu;
extern const struct sm_sandbox_calls sm_calls_machine_device;
extern const struct sm_sandbox_calls sm_calls_network;
extern const struct sm_sandbox_calls sm_calls_image;

/* Stands for the process's own number in a list, which tighten puts in. */
#define SM_SANDBOX_SELF 0x5e1f5e1f

/* Instructions of a list, at most: 8 KiB on the stack of who puts it in force. */
#define SM_SANDBOX_LONGEST 1024

/* "read", of this architecture; "" for what is no system call. */
const char *sm_sandbox_call_name(unsigned number);
/* One of the first three arguments of a refused call: context is the third of its signal's
 * handler. */
uint64_t sm_sandbox_argument(const void *context, unsigned index);

#endif
