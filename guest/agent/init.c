/*
 * The small init: the agent's own program, executed as process 1 of the container by another name.
 * Its argument is the PID of its child: it passes signals on to that, ends with its exit code, and
 * waits for everybody's orphans. With one that is no number it ends at once.
 */
#include "init.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* The exit code is a shell's for who was ended by a signal. */
static void reap(pid_t child)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == child)
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int init_main(int argc, char **argv)
{
    pid_t child = argc > 1 ? (pid_t)atoi(argv[1]) : 0;
    if (child == 0)
        return 0;
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    reap(child); /* who ended before we listened */
    for (;;) {
        int sig = sigwaitinfo(&all, NULL);
        if (sig == SIGCHLD)
            reap(child);
        else if (sig > 0)
            kill(child, sig);
    }
}
