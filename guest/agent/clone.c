/* clone3 with a stack: see clone.h. */
#include "clone.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/sched.h>

#include "loop.h"

#ifndef CLONE_INTO_CGROUP /* an enum's range ends below it in headers of C libraries */
#define CLONE_INTO_CGROUP 0x200000000ull
#endif

/* In the child everything but the stack is as here: what it is to do waits in registers. */
static long clone3(struct clone_args *args, int (*fn)(void *), void *arg)
{
#ifdef __x86_64__
    long rc;
    register int (*to_call)(void *) __asm__("r12") = fn;
    register void *with __asm__("r13") = arg;
    __asm__ volatile(
        "syscall\n\t"
        "test %%rax, %%rax\n\t"
        "jnz 1f\n\t"
        "mov %[with], %%rdi\n\t"
        "call *%[to_call]\n\t"
        "mov %%eax, %%edi\n\t"
        "mov %[exit], %%eax\n\t"
        "syscall\n"
        "1:"
        : "=a"(rc)
        : "a"((long)SYS_clone3), "D"(args),
        "S"(sizeof(*args)), [to_call] "r"(to_call), [with] "r"(with), [exit] "i"(SYS_exit)
        : "rcx", "r11", "cc", "memory");
    return rc;
#elif defined(__aarch64__)
    register long rc __asm__("x0") = (long)args;
    register long size __asm__("x1") = sizeof(*args);
    register long number __asm__("x8") = SYS_clone3;
    register int (*to_call)(void *) __asm__("x19") = fn;
    register void *with __asm__("x20") = arg;
    __asm__ volatile(
        "svc 0\n\t"
        "cbnz x0, 1f\n\t"
        "mov x0, %[with]\n\t"
        "blr %[to_call]\n\t"
        "mov x8, %[exit]\n\t"
        "svc 0\n"
        "1:"
        : "+r"(rc)
        : "r"(size), "r"(number), [to_call] "r"(to_call), [with] "r"(with), [exit] "i"(SYS_exit)
        : "cc", "memory");
    return rc;
#else
#error "clone3 is not written for this architecture"
#endif
}

pid_t clone_child(const struct clone_child *c)
{
    struct clone_args args = {
        .flags = c->flags | CLONE_VM | (c->cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uintptr_t)c->pidfd,
        .child_tid = (uintptr_t)c->running,
        .exit_signal = SIGCHLD,
        .stack = (uintptr_t)c->stack,
        .stack_size = c->stack_size,
        .cgroup = c->cgroup >= 0 ? (uint64_t)c->cgroup : 0,
    };
    long rc = clone3(&args, c->fn, c->arg);
    if (rc < 0) {
        errno = (int)-rc;
        return -1;
    }
    return (pid_t)rc;
}

bool clone_await(int *word, uint32_t ms)
{
    uint64_t now = loop_now_ns(), end = now + ms * (uint64_t)1000000;
    for (int value; (value = __atomic_load_n(word, __ATOMIC_ACQUIRE)) != 0; now = loop_now_ns()) {
        if (now >= end)
            return false;
        uint64_t left = end - now;
        struct timespec t = {(time_t)(left / 1000000000), (long)(left % 1000000000)};
        syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
    }
    return true;
}

pid_t clone_until_it_executes(const struct clone_child *c, uint32_t ms)
{
    int running = 1, pidfd = -1;
    struct clone_child child = *c;
    child.flags |= CLONE_PIDFD | CLONE_CHILD_CLEARTID;
    child.pidfd = &pidfd;
    child.running = &running;
    pid_t pid = clone_child(&child);
    if (pid < 0)
        return -1;
    bool executes = clone_await(&running, ms);
    if (!executes) {
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        while (!clone_await(&running, ms))
            ;
    }
    close(pidfd);
    errno = ETIMEDOUT;
    return executes ? pid : -1;
}
