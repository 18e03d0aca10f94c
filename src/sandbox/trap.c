/*
 * What happens at a refused system call: a line, and the end. See sandbox.h.
 *
 * A handler is the process's and gets no word of its owner's, so what it needs is static here: the
 * one place of this library's code that has state, and only in a process of ours.
 *
 * System calls: write, exit_group, rt_sigreturn.
 * System calls before a list: rt_sigaction, rt_sigprocmask.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/calls.h"
#include "sandbox/internal.h"
#include "util/error.h"

/* What a refusal was told to say; longer names are cut. */
#define LONGEST_WHO 64
/* The first three: an ioctl's number is the second, the protection of memory the third. */
#define SHOWN_ARGUMENTS 3

static struct {
    int fd;
    char who[LONGEST_WHO];
} trap = {.fd = -1};

/* A line that is put together without stdio, which a signal's handler must not use. */
struct line {
    char text[256];
    size_t length;
};

static void add(struct line *line, const char *text)
{
    for (; *text && line->length < sizeof(line->text); text++)
        line->text[line->length++] = *text;
}

static void add_number(struct line *line, uint64_t number, unsigned base)
{
    char digits[24], *p = digits + sizeof(digits) - 1;
    *p = '\0';
    do
        *--p = "0123456789abcdef"[number % base];
    while ((number /= base));
    add(line, p);
}

static void on_refusal(int sig, siginfo_t *info, void *context)
{
    struct line line = {.length = 0};
    add(&line, trap.who);
    add(&line, " was refused the system call ");
    add(&line, sm_sandbox_call_name((unsigned)info->si_syscall));
    add(&line, " (");
    add_number(&line, (uint64_t)info->si_syscall, 10);
    for (unsigned i = 0; i < SHOWN_ARGUMENTS; i++) {
        add(&line, i ? ", 0x" : " with 0x");
        add_number(&line, sm_sandbox_argument(context, i), 16);
    }
    add(&line, "), which it has no need of\n");
    if (trap.fd >= 0 && write(trap.fd, line.text, line.length) < 0)
        trap.fd = -1; /* nobody listens; the status tells */
    _exit(SM_SANDBOX_STATUS_REFUSED);
}

int sm_sandbox_catch(const char *who, int fd, sm_error *err)
{
    struct sigaction action = {.sa_sigaction = on_refusal, .sa_flags = SA_SIGINFO};
    sigset_t refusals;
    trap.fd = fd;
    strncpy(trap.who, who, sizeof(trap.who) - 1);
    sigfillset(&action.sa_mask);
    sigemptyset(&refusals);
    sigaddset(&refusals, SIGSYS);
    if (sigaction(SIGSYS, &action, NULL) < 0 || sigprocmask(SIG_UNBLOCK, &refusals, NULL) < 0)
        return sm_error_errno(err, errno, "cannot catch refused system calls");
    return 0;
}
