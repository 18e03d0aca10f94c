/* Signals of the `run` command. See signals.h. */
#include "cli/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cli/terminal.h"

#define KILL_AFTER    3  /* requests to end ... */
#define KILL_WITHIN_S 10 /* ... in this time */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sm_exec *target;
static pthread_cond_t attached = PTHREAD_COND_INITIALIZER;
static bool target_tty, holding, was_attached;
static sigset_t taken;

static bool asks_to_end(int sig)
{
    return sig == SIGINT || sig == SIGTERM || sig == SIGHUP || sig == SIGQUIT;
}

static _Noreturn void die(int sig)
{
    cli_terminal_restore();
    signal(sig, SIG_DFL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sig);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(sig);
    _exit(128 + sig);
}

static void pass_on(int sig, int requests)
{
    if (sig == SIGWINCH) {
        uint16_t rows, columns;
        if (target_tty && cli_terminal_size(&rows, &columns))
            sm_exec_resize(target, rows, columns, NULL);
    } else if (requests >= KILL_AFTER) {
        sm_exec_signal(target, SIGKILL, NULL);
    } else {
        sm_exec_signal(target, sig == SIGTERM ? SM_SIGNAL_STOP : sig, NULL);
    }
}

static void *take_signals(void *arg)
{
    int requests = 0;
    struct timespec first = {0}, now;
    for (;;) {
        int sig;
        if (sigwait(&taken, &sig))
            continue;
        if (sig == SIGCONT) {
            cli_terminal_continue();
            sig = SIGWINCH; /* the size may have changed meanwhile */
        }
        if (asks_to_end(sig)) {
            clock_gettime(CLOCK_MONOTONIC, &now);
            if (requests == 0 || now.tv_sec - first.tv_sec > KILL_WITHIN_S) {
                requests = 0;
                first = now;
            }
            requests++;
        }
        pthread_mutex_lock(&lock);
        while (holding)
            pthread_cond_wait(&attached, &lock);
        if ((!was_attached && sig != SIGWINCH) || requests > KILL_AFTER)
            die(sig);
        if (target)
            pass_on(sig, requests);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

bool cli_signals_start(void)
{
    static const int signals[] = {
        SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT};
    sigemptyset(&taken);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        /* nohup and shells that start us in the background ignore some on purpose */
        struct sigaction action;
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&taken, signals[i]);
    }
    pthread_t thread;
    if (pthread_sigmask(SIG_BLOCK, &taken, NULL) ||
        pthread_create(&thread, NULL, take_signals, NULL))
        return false;
    return pthread_detach(thread) == 0;
}

void cli_signals_hold(void)
{
    pthread_mutex_lock(&lock);
    holding = true;
    pthread_mutex_unlock(&lock);
}

void cli_signals_attach(sm_exec *exec, bool tty)
{
    pthread_mutex_lock(&lock);
    target = exec;
    target_tty = tty;
    if (exec)
        was_attached = true;
    holding = false;
    pthread_cond_signal(&attached);
    pthread_mutex_unlock(&lock);
}
