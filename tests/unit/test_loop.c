/* The event loop: calls, watches, timers and pauses, from its own thread, from others, and before
 * there is one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "patience.h"
#include "util/bell.h"
#include "util/loop.h"
#include "util/thread.h"

struct fixture {
    struct sm_loop *loop;
    struct sm_bell bell;
    struct sm_loop_watch *watch, *other;
    struct sm_loop_timer *timer;
    atomic_int count, other_count;
    pthread_t seen;
};

static struct fixture *setup(void **state, bool start)
{
    static struct fixture f;
    memset(&f, 0, sizeof(f));
    assert_int_equal(sm_loop_create(&f.loop, NULL), 0);
    assert_int_equal(sm_bell_make(&f.bell, NULL), 0);
    if (start)
        assert_int_equal(sm_loop_start(f.loop, "test", NULL), 0);
    *state = &f;
    return &f;
}

static void finish(struct fixture *f)
{
    sm_loop_destroy(f->loop);
    sm_bell_close(&f->bell);
}

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L}, NULL);
}

static void wait_for(atomic_int *value, int at_least)
{
    for (int i = 0; i < PATIENCE_MS && atomic_load(value) < at_least; i++)
        sleep_ms(1);
    assert_true(atomic_load(value) >= at_least);
}

static void count_event(void *arg, uint32_t events)
{
    struct fixture *f = arg;
    assert_true(events & SM_LOOP_IN);
    sm_bell_clear(&f->bell);
    atomic_fetch_add(&f->count, 1);
}

static void add_watch(void *arg)
{
    struct fixture *f = arg;
    f->seen = pthread_self();
    assert_int_equal(
        sm_loop_add(f->loop, sm_bell_fd(&f->bell), SM_LOOP_IN, count_event, f, &f->watch, NULL), 0);
}

static void remove_watch(void *arg)
{
    struct fixture *f = arg;
    sm_loop_remove(f->watch);
    f->watch = NULL;
}

static void increment(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void calls_run_on_the_thread_and_events_arrive(void **state)
{
    struct fixture *f = setup(state, true);
    sm_loop_run(f->loop, add_watch, f);
    assert_false(pthread_equal(f->seen, pthread_self()));
    assert_false(sm_loop_is_here(f->loop));
    sm_bell_ring(&f->bell);
    wait_for(&f->count, 1);
    sm_loop_run(f->loop, remove_watch, f);
    sm_bell_ring(&f->bell);
    sleep_ms(20);
    assert_int_equal(atomic_load(&f->count), 1);
    finish(f);
}

static void without_a_thread_calls_are_direct(void **state)
{
    struct fixture *f = setup(state, false);
    assert_true(sm_loop_is_here(f->loop));
    sm_loop_run(f->loop, add_watch, f);
    assert_true(pthread_equal(f->seen, pthread_self()));
    sm_bell_ring(&f->bell);
    sm_loop_turn(f->loop);
    assert_int_equal(f->count, 1);
    /* Posts wait for the start. */
    assert_int_equal(sm_loop_post(f->loop, increment, &f->other_count, NULL), 0);
    assert_int_equal(f->other_count, 0);
    assert_int_equal(sm_loop_start(f->loop, "test", NULL), 0);
    assert_int_equal(sm_loop_start(f->loop, "test", NULL), -SM_EINVAL);
    wait_for(&f->other_count, 1);
    sm_loop_stop(f->loop);
    assert_int_equal(sm_loop_post(f->loop, increment, &f->other_count, NULL), -SM_ECANCELLED);
    sm_loop_run(f->loop, increment, &f->other_count);
    assert_int_equal(f->other_count, 2);
    finish(f);
}

/* Both watches are ready in the same round; the first one called removes both. */
static void remove_both(void *arg, uint32_t events)
{
    (void)events;
    struct fixture *f = arg;
    atomic_fetch_add(&f->count, 1);
    sm_loop_remove(f->watch);
    sm_loop_remove(f->other);
}

static void a_removed_watch_is_not_called_in_the_same_round(void **state)
{
    struct fixture *f = setup(state, false);
    struct sm_bell second;
    assert_int_equal(sm_bell_make(&second, NULL), 0);
    sm_bell_ring(&f->bell);
    sm_bell_ring(&second);
    assert_int_equal(
        sm_loop_add(f->loop, sm_bell_fd(&f->bell), SM_LOOP_IN, remove_both, f, &f->watch, NULL), 0);
    assert_int_equal(
        sm_loop_add(f->loop, sm_bell_fd(&second), SM_LOOP_IN, remove_both, f, &f->other, NULL), 0);
    sm_loop_turn(f->loop);
    assert_int_equal(f->count, 1);
    sm_bell_close(&second);
    finish(f);
}

static void arm_10ms(void *arg)
{
    sm_loop_timer_arm(((struct fixture *)arg)->timer, 10);
}

static void timer_fired(void *arg)
{
    struct fixture *f = arg;
    if (atomic_fetch_add(&f->count, 1) < 2)
        sm_loop_timer_arm(f->timer, 5);
}

static void end_timer(void *arg)
{
    struct fixture *f = arg;
    sm_loop_timer_destroy(f->timer);
    f->timer = NULL;
}

static void timers_fire_once_and_can_be_armed_again(void **state)
{
    struct fixture *f = setup(state, true);
    assert_int_equal(sm_loop_timer_create(f->loop, timer_fired, f, &f->timer, NULL), 0);
    sleep_ms(20);
    assert_int_equal(atomic_load(&f->count), 0);
    sm_loop_run(f->loop, arm_10ms, f);
    wait_for(&f->count, 3);
    sleep_ms(20);
    assert_int_equal(atomic_load(&f->count), 3);
    sm_loop_run(f->loop, end_timer, f);
    finish(f);
}

static void pause_holds_events_and_posts_but_serves_calls(void **state)
{
    struct fixture *f = setup(state, true);
    sm_loop_run(f->loop, add_watch, f);
    for (int round = 1; round <= 20; round++) {
        sm_loop_pause(f->loop);
        int before = atomic_load(&f->count);
        sm_bell_ring(&f->bell);
        assert_int_equal(sm_loop_post(f->loop, increment, &f->other_count, NULL), 0);
        atomic_int called = 0;
        sm_loop_run(f->loop, increment, &called);
        assert_int_equal(called, 1);
        if (round == 1)
            sleep_ms(20);
        assert_int_equal(atomic_load(&f->count), before);
        assert_int_equal(atomic_load(&f->other_count), round - 1);
        sm_loop_resume(f->loop);
        wait_for(&f->count, before + 1);
        wait_for(&f->other_count, round);
    }
    finish(f);
}

struct block {
    atomic_int started, released;
};

static void block(void *arg)
{
    struct block *b = arg;
    atomic_fetch_add(&b->started, 1);
    wait_for(&b->released, 1);
}

static void call_once(void *arg)
{
    struct fixture *f = arg;
    sm_loop_run(f->loop, increment, &f->count);
    atomic_fetch_add(&f->other_count, 1);
}

static void a_call_waits_for_its_turn_and_its_end(void **state)
{
    struct fixture *f = setup(state, true);
    struct sm_thread thread = {0};
    struct block b = {0};
    assert_int_equal(sm_loop_post(f->loop, block, &b, NULL), 0);
    wait_for(&b.started, 1);
    assert_int_equal(sm_thread_start(&thread, "caller", call_once, f, 0, NULL), 0);
    sleep_ms(20);
    assert_int_equal(atomic_load(&f->count), 0);
    assert_int_equal(atomic_load(&f->other_count), 0);
    atomic_store(&b.released, 1);
    sm_thread_join(&thread);
    assert_int_equal(f->count, 1);
    assert_int_equal(f->other_count, 1);
    finish(f);
}

#define CALLERS 4
#define CALLS   200

static void caller(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < CALLS; i++) {
        sm_loop_run(f->loop, increment, &f->count);
        assert_int_equal(sm_loop_post(f->loop, increment, &f->other_count, NULL), 0);
    }
}

static void many_threads_call_and_post(void **state)
{
    struct fixture *f = setup(state, true);
    struct sm_thread threads[CALLERS] = {0};
    for (int i = 0; i < CALLERS; i++)
        assert_int_equal(sm_thread_start(&threads[i], "caller", caller, f, 0, NULL), 0);
    for (int i = 0; i < CALLERS; i++)
        sm_thread_join(&threads[i]);
    sm_loop_stop(f->loop); /* runs what is queued */
    assert_int_equal(f->count, CALLERS * CALLS);
    assert_int_equal(f->other_count, CALLERS * CALLS);
    finish(f);
}

static void only_call(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < CALLS; i++)
        sm_loop_run(f->loop, increment, &f->count);
}

/* On the loop's thread, or on the callers': each call is made, once. */
static void calls_are_made_while_the_loop_starts_and_stops(void **state)
{
    struct fixture *f = setup(state, false);
    struct sm_thread threads[CALLERS] = {0};
    for (int i = 0; i < CALLERS; i++)
        assert_int_equal(sm_thread_start(&threads[i], "caller", only_call, f, 0, NULL), 0);
    while (atomic_load(&f->count) < CALLERS * CALLS) {
        assert_int_equal(sm_loop_start(f->loop, "test", NULL), 0);
        sm_loop_stop(f->loop);
    }
    for (int i = 0; i < CALLERS; i++)
        sm_thread_join(&threads[i]);
    assert_int_equal(f->count, CALLERS * CALLS);
    finish(f);
}

/* ---- on the loop's thread only --------------------------------------------------------------- */

static void create_timer(struct fixture *f)
{
    assert_int_equal(sm_loop_timer_create(f->loop, timer_fired, f, &f->timer, NULL), 0);
}

static void arm(struct fixture *f)
{
    sm_loop_timer_arm(f->timer, 1);
}

static void disarm(struct fixture *f)
{
    sm_loop_timer_disarm(f->timer);
}

static void modify(struct fixture *f)
{
    sm_loop_modify(f->watch, 0);
}

static void add(struct fixture *f)
{
    add_watch(f);
}

static void remove_it(struct fixture *f)
{
    remove_watch(f);
}

/* What the signal was that a process ended by that did so while the loop's thread ran; 0: none. The
 * loop is made by that process. */
static int signal_of(void **state, void (*do_so)(struct fixture *f))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)!freopen("/dev/null", "w", stderr); /* what assert says */
        struct fixture *f = setup(state, false);
        if (do_so != add)
            add_watch(f);
        if (do_so != create_timer)
            create_timer(f);
        if (sm_loop_start(f->loop, "test", NULL))
            _exit(1);
        do_so(f);
        sm_loop_stop(f->loop);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void another_thread_may_not_touch_watches_and_timers(void **state)
{
    void (*const forbidden[])(struct fixture * f) = {add, modify, remove_it, arm, disarm};
#ifdef NDEBUG
    skip();
#endif
    for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
        assert_int_equal(signal_of(state, forbidden[i]), SIGABRT);
    assert_int_equal(signal_of(state, create_timer), 0);
}

static void tick(void *arg)
{
    ++*(unsigned *)arg;
}

/* No thread: a round waits until a timer is due, and does it. */
static void a_round_waits_for_what_is_due(void **state)
{
    (void)state;
    struct sm_loop *loop;
    struct sm_loop_timer *timer;
    unsigned ticks = 0, rounds = 0;
    assert_int_equal(sm_loop_create(&loop, NULL), 0);
    assert_int_equal(sm_loop_timer_create(loop, tick, &ticks, &timer, NULL), 0);
    sm_loop_timer_arm(timer, 30);
    for (; ticks == 0; rounds++)
        sm_loop_round(loop);
    assert_in_range(rounds, 1, 4); /* and does not spin */
    assert_int_equal(sm_loop_post(loop, tick, &ticks, NULL), 0);
    sm_loop_timer_arm(timer, 60000);
    sm_loop_round(loop);
    assert_int_equal(ticks, 2);
    sm_loop_timer_destroy(timer);
    sm_loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_run_on_the_thread_and_events_arrive),
        cmocka_unit_test(without_a_thread_calls_are_direct),
        cmocka_unit_test(a_removed_watch_is_not_called_in_the_same_round),
        cmocka_unit_test(timers_fire_once_and_can_be_armed_again),
        cmocka_unit_test(pause_holds_events_and_posts_but_serves_calls),
        cmocka_unit_test(a_call_waits_for_its_turn_and_its_end),
        cmocka_unit_test(many_threads_call_and_post),
        cmocka_unit_test(calls_are_made_while_the_loop_starts_and_stops),
        cmocka_unit_test(another_thread_may_not_touch_watches_and_timers),
        cmocka_unit_test(a_round_waits_for_what_is_due),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
