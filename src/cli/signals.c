/* Signals of the `run` command. See signals.h. */
#include "cli/signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/control.h"
#include "cli/terminal.h"
#include "util/clock.h"
#include "util/thread.h"

#define END_AFTER   3     /* requests to end ... */
#define END_WITHIN  10000 /* ... in this many milliseconds */
#define MAX_PENDING 16

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static sm_vm *vm;       /* in which a command runs or is being started */
static sm_exec *target; /* the command, once it is started */
static bool target_tty, was_held, ended;
static struct sm_thread ender;   /* by this one */
static int pending[MAX_PENDING]; /* came while it was being started */
static size_t n_pending;
static int stop_ms;
static int64_t stop_deadline = SM_NO_DEADLINE; /* by then a SIGTERM must have had its effect */
static sigset_t taken;

static bool asks_to_end(int sig)
{
    return sig == SIGINT || sig == SIGTERM || sig == SIGHUP || sig == SIGQUIT;
}

static _Noreturn void die(int sig)
{
    cli_terminal_restore();
    cli_control_abandon();
    signal(sig, SIG_DFL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sig);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(sig);
    _exit(128 + sig);
}

static void pass_on(int sig)
{
    uint16_t rows, columns;
    if (sig != SIGWINCH)
        sm_exec_signal(target, sig == SIGTERM ? SM_SIGNAL_STOP : sig, NULL);
    else if (target_tty && cli_terminal_size(&rows, &columns))
        sm_exec_resize(target, rows, columns, NULL);
}

static void stop_vm(void *arg)
{
    sm_vm_stop(arg, 0, NULL);
}

/* Without asking the guest, which may not react to anything; and without waiting, since signals are
 * still to be taken. */
static void end_vm(void)
{
    stop_deadline = SM_NO_DEADLINE;
    if (ended)
        return;
    ended = true;
    if (sm_thread_start(&ender, "stop", stop_vm, vm, 0, NULL))
        stop_vm(vm);
}

/* Under the lock. `requests`: so many asked for the end in a short time, this one included. */
static void take_signal(int sig, int requests)
{
    if ((!was_held && sig != SIGWINCH) || requests > END_AFTER || (!vm && requests == END_AFTER))
        die(sig);
    if (!vm)
        return;
    if (requests == END_AFTER) {
        end_vm();
        return;
    }
    if (sig == SIGTERM && stop_deadline == SM_NO_DEADLINE)
        stop_deadline = sm_deadline(stop_ms);
    if (target)
        pass_on(sig);
    else if (n_pending < MAX_PENDING)
        pending[n_pending++] = sig;
}

static void stop_time_is_over(void)
{
    if (!vm || stop_deadline == SM_NO_DEADLINE || sm_deadline_left(stop_deadline) > 0)
        return;
    cli_fail("the command did not end within %.1f s of SIGTERM; its VM was ended", stop_ms / 1e3);
    end_vm();
}

/* The next signal; 0: it is time to look at the deadline. */
static int next_signal(int64_t deadline)
{
    int ms = sm_deadline_left(deadline);
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    int sig = sigtimedwait(&taken, NULL, ms < 0 ? NULL : &t);
    return sig < 0 ? 0 : sig;
}

static void *take_signals(void *arg)
{
    int requests = 0;
    int64_t first = 0, deadline = SM_NO_DEADLINE;
    for (;;) {
        int sig = next_signal(deadline);
        if (sig == SIGCONT) {
            cli_terminal_continue();
            sig = SIGWINCH; /* the size may have changed meanwhile */
        }
        if (asks_to_end(sig)) {
            if (requests == 0 || sm_now_ms() - first > END_WITHIN) {
                requests = 0;
                first = sm_now_ms();
            }
            requests++;
        }
        pthread_mutex_lock(&lock);
        if (sig)
            take_signal(sig, asks_to_end(sig) ? requests : 0);
        stop_time_is_over();
        deadline = vm ? stop_deadline : SM_NO_DEADLINE;
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
    /* Not a thread of util/thread.h, which would block SIGTTOU as well: in the background that
     * would let it set the terminal of the shell. */
    pthread_t thread;
    if (pthread_sigmask(SIG_BLOCK, &taken, NULL) ||
        pthread_create(&thread, NULL, take_signals, NULL))
        return false;
    return pthread_detach(thread) == 0;
}

void cli_signals_hold(sm_vm *holder, int stop_timeout_ms)
{
    pthread_mutex_lock(&lock);
    vm = holder;
    stop_ms = stop_timeout_ms;
    was_held = true;
    pthread_mutex_unlock(&lock);
}

void cli_signals_attach(sm_exec *exec, bool tty)
{
    pthread_mutex_lock(&lock);
    target = exec;
    target_tty = tty;
    for (size_t i = 0; i < n_pending; i++)
        pass_on(pending[i]);
    n_pending = 0;
    pthread_mutex_unlock(&lock);
}

bool cli_signals_release(void)
{
    pthread_mutex_lock(&lock);
    vm = NULL;
    target = NULL;
    n_pending = 0;
    bool did = ended;
    pthread_mutex_unlock(&lock);
    sm_thread_join(&ender); /* nothing starts one any more */
    return did;
}
