/* Programs of ours that are started, by a caller in every state (util/spawn.h). */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "util/spawn.h"

#define SH "/bin/sh"

static const char *const sleeps[] = {SH, "-c", "exec sleep 1000", NULL};

/* Runs a script whose descriptor 3 is a pipe; what it wrote there. */
static void run(const char *script, char *said, size_t size)
{
    int to[2], pidfd, pid;
    sm_error err;
    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    const char *const argv[] = {SH, "-c", script, NULL};
    const struct sm_spawn spawn = {.program = SH, .argv = argv, .fds = &to[1], .n_fds = 1};
    if (sm_spawn(&spawn, &pidfd, &pid, &err))
        fail_msg("%s", err.message);
    close(to[1]);
    size_t have = 0;
    ssize_t n;
    while ((n = read(to[0], said + have, size - 1 - have)) > 0)
        have += (size_t)n;
    said[have] = '\0';
    close(to[0]);
    assert_true(sm_spawn_wait(pidfd, -1));
    close(pidfd);
}

static void it_has_what_it_was_given_and_nothing_else(void **state)
{
    char said[512];
    (void)state;
    int left_open = dup(0); /* without close-on-exec */
    run("for f in 0 1 2; do l=$(readlink /proc/$$/fd/$f); echo $l >&3; done; cd /proc/$$/fd\n"
        "for f in *; do case $f in [0123]|1?) ;; *) [ ! -e $f ] || echo more $f >&3;; esac; done",
        said, sizeof(said));
    close(left_open);
    assert_string_equal(said, "/dev/null\n/dev/null\n/dev/null\n");
}

static void a_caller_who_ignores_children_or_waits_for_any_does_not_meet_it(void **state)
{
    char said[64];
    int pidfd, pid, status;
    (void)state;
    signal(SIGCHLD, SIG_IGN);
    run("echo here >&3", said, sizeof(said));
    signal(SIGCHLD, SIG_DFL);
    assert_string_equal(said, "here\n");
    const struct sm_spawn spawn = {.program = SH, .argv = sleeps};
    assert_int_equal(sm_spawn(&spawn, &pidfd, &pid, NULL), 0);
    assert_int_equal(waitpid(-1, &status, __WALL | WNOHANG), -1); /* there is no child */
    sm_spawn_kill(pidfd);
    close(pidfd);
}

static void no_signal_is_blocked_in_it_and_no_key_of_a_terminal_reaches_it(void **state)
{
    char said[256];
    sigset_t all, before;
    (void)state;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    run("sed -n s/^SigBlk:.//p /proc/self/status >&3; [ $(cut -d' ' -f5 /proc/$$/stat) = $$ ] && echo own >&3",
        said, sizeof(said));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert_string_equal(said, "0000000000000000\nown\n");
}

static void without_standard_descriptors_and_with_few_left_it_starts_all_the_same(void **state)
{
    char said[64];
    struct rlimit old, few = {64, 64};
    (void)state;
    int in = dup(0), out = dup(1), errors = dup(2);
    getrlimit(RLIMIT_NOFILE, &old);
    few.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_NOFILE, &few);
    close(0), close(1), close(2);
    run("echo here >&3", said, sizeof(said));
    dup2(in, 0), dup2(out, 1), dup2(errors, 2);
    close(in), close(out), close(errors);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_string_equal(said, "here\n");
}

static void a_program_that_is_not_there_is_told_of_and_leaves_no_child(void **state)
{
    (void)state;
    const char *const argv[] = {"/nowhere/supermachine-vm", NULL};
    const struct sm_spawn spawn = {.program = argv[0], .argv = argv};
    int pidfd, pid, status;
    sm_error err;
    for (int orphans = 0; orphans <= 1; orphans++) { /* given to the caller */
        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, orphans), 0);
        assert_int_equal(sm_spawn(&spawn, &pidfd, &pid, &err), -SM_ENOTFOUND);
        assert_non_null(strstr(err.message, "cannot start /nowhere/supermachine-vm"));
        assert_int_equal(waitpid(-1, &status, __WALL), -1);
    }
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

static void one_that_hangs_is_waited_for_no_longer_than_said_and_can_be_killed(void **state)
{
    (void)state;
    const struct sm_spawn spawn = {.program = SH, .argv = sleeps};
    int pidfd, pid;
    assert_int_equal(sm_spawn(&spawn, &pidfd, &pid, NULL), 0);
    assert_false(sm_spawn_wait(pidfd, 10));
    sm_spawn_kill(pidfd);
    assert_true(sm_spawn_wait(pidfd, 0));
    close(pidfd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_has_what_it_was_given_and_nothing_else),
        cmocka_unit_test(a_caller_who_ignores_children_or_waits_for_any_does_not_meet_it),
        cmocka_unit_test(no_signal_is_blocked_in_it_and_no_key_of_a_terminal_reaches_it),
        cmocka_unit_test(without_standard_descriptors_and_with_few_left_it_starts_all_the_same),
        cmocka_unit_test(a_program_that_is_not_there_is_told_of_and_leaves_no_child),
        cmocka_unit_test(one_that_hangs_is_waited_for_no_longer_than_said_and_can_be_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
