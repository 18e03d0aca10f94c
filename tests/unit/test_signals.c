/* Requests to end a VM that cannot be ended: no VM and no terminal are needed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/control.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "util/bytes.h"

/* Different ones: those of one kind are not counted while they wait. */
static const int requests[] = {SIGINT, SIGHUP, SIGQUIT, SIGTERM};
static int begun[2]; /* a byte for each VM that is being ended */
static bool hangs;
static _Atomic bool stopped;

int sm_vm_stop(sm_vm *vm, int timeout_ms, sm_error *err)
{
    (void)!write(begun[1], "", 1);
    while (hangs)
        pause();
    usleep(50000);
    stopped = true;
    return 0;
}

/* What else signals.c calls. */
int sm_exec_signal(sm_exec *exec, int sig, sm_error *err)
{
    return 0;
}

int sm_exec_resize(sm_exec *exec, uint16_t rows, uint16_t columns, sm_error *err)
{
    return 0;
}

int cli_fail(const char *fmt, ...)
{
    return CLI_EXIT_FAILURE;
}

void cli_control_abandon(void)
{
}

void cli_terminal_restore(void)
{
}

void cli_terminal_continue(void)
{
}

bool cli_terminal_size(uint16_t *rows, uint16_t *columns)
{
    return false;
}

static void await_end(void)
{
    char byte;
    assert_int_equal(read(begun[0], &byte, 1), 1);
}

/* A process that holds a VM, waits until that is being ended, and lets go of it. */
static pid_t hold(void)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(begun) | pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60); /* one that nothing ends */
        for (size_t i = 0; i < SM_ARRAY_LEN(requests); i++)
            signal(requests[i],
                SIG_DFL); /* a shell that started us in the background has some ignored */
        if (!cli_signals_start())
            _exit(1);
        cli_signals_hold((sm_vm *)begun, 30000);
        (void)!write(ready[1], "", 1);
        while (!hangs && read(begun[0], &byte, 1) != 1)
            ;
        while (hangs)
            pause();
        _exit(cli_signals_release() && stopped ? 0 : 2);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    close(begun[1]);
    return pid;
}

static void ask_three_times(pid_t pid)
{
    for (size_t i = 0; i < 3; i++)
        kill(pid, requests[i]);
}

static void the_fourth_request_ends_whatever_hangs(void **state)
{
    int status;
    hangs = true;
    pid_t pid = hold();
    ask_three_times(pid);
    await_end();
    kill(pid, requests[3]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGTERM);
}

static void a_vm_is_let_go_of_when_it_is_ended(void **state)
{
    int status;
    hangs = false;
    pid_t pid = hold();
    ask_three_times(pid);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int close_pipe(void **state)
{
    return close(begun[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_fourth_request_ends_whatever_hangs, close_pipe),
        cmocka_unit_test_teardown(a_vm_is_let_go_of_when_it_is_ended, close_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
