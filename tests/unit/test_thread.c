/* Threads take no signal but a fault of their own; waits end at their deadline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "patience.h"
#include "util/clock.h"
#include "util/thread.h"

struct seen {
    sigset_t mask;
    char name[16];
    size_t stack;
    bool self;
    struct sm_thread *thread;
};

static void look(void *arg)
{
    struct seen *seen = arg;
    pthread_attr_t attr;
    pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
    pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        pthread_attr_getstacksize(&attr, &seen->stack);
        pthread_attr_destroy(&attr);
    }
    seen->self = sm_thread_is_self(seen->thread);
}

static void a_thread_takes_no_signal_but_its_own_faults(void **state)
{
    static const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    struct sm_thread thread = {0};
    struct seen seen = {.thread = &thread};
    sigset_t before, after, wanted;
    /* Even where the program has them blocked. */
    sigemptyset(&before);
    sigaddset(&before, SIGSEGV);
    sigaddset(&before, SIGUSR1);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert_int_equal(sm_thread_start(&thread, "test", look, &seen, 0, NULL), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    sm_thread_join(&thread);
    sigfillset(&wanted);
    sigdelset(&wanted, SIGKILL); /* nobody blocks these two */
    sigdelset(&wanted, SIGSTOP);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(&wanted, faults[i]);
    for (int sig = 1; sig < NSIG; sig++) {
        assert_int_equal(sigismember(&after, sig), sigismember(&before, sig));
        assert_int_equal(sigismember(&seen.mask, sig), sigismember(&wanted, sig));
    }
    assert_true(seen.self);
    assert_false(sm_thread_is_self(&thread));
}

static void a_thread_has_the_name_and_the_stack_that_were_asked_for(void **state)
{
    struct sm_thread thread = {0};
    struct seen seen = {.thread = &thread};
    char name[] = "a name of more than fifteen bytes";
    assert_int_equal(sm_thread_start(&thread, name, look, &seen, 512 << 10, NULL), 0);
    memset(name, 'x', sizeof(name) - 1); /* it was copied */
    sm_thread_join(&thread);
    assert_string_equal(seen.name, "a name of more ");
    assert_in_range(seen.stack, 512 << 10, 2 << 20); /* a sanitizer's own needs are added */
}

static void what_did_not_start_is_not_joined(void **state)
{
    struct sm_thread thread = {0};
    sm_error err;
    sm_thread_join(&thread);
    /* No stack is as small as that. */
    assert_true(sm_thread_start(&thread, "tiny", look, NULL, 1, &err) < 0);
    assert_non_null(strstr(err.message, "cannot start the thread 'tiny'"));
    assert_false(thread.started);
    sm_thread_join(&thread);
}

/* ---- waiting --------------------------------------------------------------------------------- */

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool asked, open;
};

static void gate_init(struct gate *gate)
{
    *gate = (struct gate){.open = false};
    pthread_mutex_init(&gate->lock, NULL);
    sm_cond_init(&gate->changed);
}

static void gate_close(struct gate *gate)
{
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->lock);
}

static void open_when_asked(void *arg)
{
    struct gate *gate = arg;
    pthread_mutex_lock(&gate->lock);
    while (!gate->asked)
        sm_cond_wait_until(&gate->changed, &gate->lock, SM_NO_DEADLINE);
    gate->open = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static void a_wait_ends_when_it_is_told(void **state)
{
    const int64_t deadlines[] = {SM_NO_DEADLINE, sm_deadline(PATIENCE_MS)};
    for (size_t i = 0; i < sizeof(deadlines) / sizeof(deadlines[0]); i++) {
        struct gate gate;
        struct sm_thread thread = {0};
        gate_init(&gate);
        assert_int_equal(sm_thread_start(&thread, "gate", open_when_asked, &gate, 0, NULL), 0);
        pthread_mutex_lock(&gate.lock);
        gate.asked = true;
        pthread_cond_broadcast(&gate.changed);
        while (!gate.open)
            assert_true(sm_cond_wait_until(&gate.changed, &gate.lock, deadlines[i]));
        pthread_mutex_unlock(&gate.lock);
        sm_thread_join(&thread);
        gate_close(&gate);
    }
}

static void a_wait_ends_at_its_deadline_and_not_before(void **state)
{
    struct gate gate;
    gate_init(&gate);
    const int64_t deadlines[] = {0, sm_now_ms() - 1, sm_now_ms(), sm_now_ms() + 30};
    pthread_mutex_lock(&gate.lock);
    for (size_t i = 0; i < sizeof(deadlines) / sizeof(deadlines[0]); i++) {
        while (sm_cond_wait_until(&gate.changed, &gate.lock, deadlines[i]))
            assert_true(sm_now_ms() <= deadlines[i] + PATIENCE_MS); /* woken for nothing */
        assert_true(sm_now_ms() >= deadlines[i]);
    }
    pthread_mutex_unlock(&gate.lock);
    gate_close(&gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_takes_no_signal_but_its_own_faults),
        cmocka_unit_test(a_thread_has_the_name_and_the_stack_that_were_asked_for),
        cmocka_unit_test(what_did_not_start_is_not_joined),
        cmocka_unit_test(a_wait_ends_when_it_is_told),
        cmocka_unit_test(a_wait_ends_at_its_deadline_and_not_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
