/* See confined.h. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confined.h"

#define NOBODY 65534

bool confine_as_nobody;

/* Of the child to its parent. */
struct message {
    struct sm_sandbox_layers layers;
    int result;
    char failed[256];
};

static bool become_nobody(void)
{
    return setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
           setresuid(NOBODY, NOBODY, NOBODY) == 0 && prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0;
}

static void child(struct sm_sandbox_spec spec, const struct sm_sandbox_calls *tighten, act_fn *act,
    const void *arg, int out)
{
    struct message message = {.result = -1};
    sm_error err = {0};
    spec.who = spec.who ? spec.who : "the test";
    if (confine_as_nobody && geteuid() == 0 && !become_nobody())
        snprintf(message.failed, sizeof(message.failed), "cannot become nobody");
    else if (sm_sandbox_enter(&spec, &message.layers, &err) ||
             (tighten && sm_sandbox_tighten(tighten, &err)))
        snprintf(message.failed, sizeof(message.failed), "%.200s", err.message);
    else
        message.result = act(arg);
    ssize_t n = write(out, &message, sizeof(message));
    _exit(n == sizeof(message) ? 0 : 100);
}

struct confined confine(const struct sm_sandbox_spec *spec, const struct sm_sandbox_calls *tighten,
    act_fn *act, const void *arg)
{
    struct confined end = {.result = -1};
    struct sm_sandbox_spec mine = *spec;
    struct message message;
    siginfo_t info;
    int out[2], trap[2];
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(trap), 0);
    mine.trap_fd = trap[1];
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        child(mine, tighten, act, arg, out[1]);
    close(out[1]);
    close(trap[1]);
    ssize_t told = read(trap[0], end.told, sizeof(end.told) - 1);
    assert_true(told >= 0);
    ssize_t n = read(out[0], &message, sizeof(message));
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED), 0);
    end.code = info.si_code;
    end.status = info.si_status;
    if (n == sizeof(message)) {
        assert_string_equal(message.failed, "");
        end.layers = message.layers;
        end.result = message.result;
    }
    close(out[0]);
    close(trap[0]);
    return end;
}
