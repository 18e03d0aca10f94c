#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "patience.h"
#include "util/loop.h"

struct fixture {
    struct sm_loop *loop;
    int fd;
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
    f.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (start)
        assert_int_equal(sm_loop_start(f.loop, "test", NULL), 0);
    *state = &f;
    return &f;
}

static void finish(struct fixture *f)
{
    sm_loop_destroy(f->loop);
    close(f->fd);
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
    assert_true(events & EPOLLIN);
    eventfd_t v;
    eventfd_read(f->fd, &v);
    atomic_fetch_add(&f->count, 1);
}

static void add_watch(void *arg)
{
    struct fixture *f = arg;
    f->seen = pthread_self();
    assert_int_equal(sm_loop_add(f->loop, f->fd, EPOLLIN, count_event, f, &f->watch, NULL), 0);
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
    assert_int_equal(sm_loop_call(f->loop, add_watch, f, -1, NULL), 0);
    assert_false(pthread_equal(f->seen, pthread_self()));
    assert_false(sm_loop_is_here(f->loop));
    eventfd_write(f->fd, 1);
    wait_for(&f->count, 1);
    assert_int_equal(sm_loop_call(f->loop, remove_watch, f, -1, NULL), 0);
    eventfd_write(f->fd, 1);
    sleep_ms(20);
    assert_int_equal(atomic_load(&f->count), 1);
    finish(f);
}

static void without_a_thread_calls_are_direct(void **state)
{
    struct fixture *f = setup(state, false);
    assert_true(sm_loop_is_here(f->loop));
    assert_int_equal(sm_loop_call(f->loop, add_watch, f, -1, NULL), 0);
    assert_true(pthread_equal(f->seen, pthread_self()));
    eventfd_write(f->fd, 1);
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
    assert_int_equal(sm_loop_call(f->loop, increment, &f->other_count, -1, NULL), 0);
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
    int second = eventfd(1, EFD_NONBLOCK);
    eventfd_write(f->fd, 1);
    assert_int_equal(sm_loop_add(f->loop, f->fd, EPOLLIN, remove_both, f, &f->watch, NULL), 0);
    assert_int_equal(sm_loop_add(f->loop, second, EPOLLIN, remove_both, f, &f->other, NULL), 0);
    sm_loop_turn(f->loop);
    assert_int_equal(f->count, 1);
    close(second);
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
    assert_int_equal(sm_loop_call(f->loop, arm_10ms, f, -1, NULL), 0);
    wait_for(&f->count, 3);
    sleep_ms(20);
    assert_int_equal(atomic_load(&f->count), 3);
    assert_int_equal(sm_loop_call(f->loop, end_timer, f, -1, NULL), 0);
    finish(f);
}

static void pause_holds_events_and_posts_but_serves_calls(void **state)
{
    struct fixture *f = setup(state, true);
    assert_int_equal(sm_loop_call(f->loop, add_watch, f, -1, NULL), 0);
    for (int round = 1; round <= 20; round++) {
        assert_int_equal(sm_loop_pause(f->loop, NULL), 0);
        int before = atomic_load(&f->count);
        eventfd_write(f->fd, 1);
        assert_int_equal(sm_loop_post(f->loop, increment, &f->other_count, NULL), 0);
        atomic_int called = 0;
        assert_int_equal(sm_loop_call(f->loop, increment, &called, -1, NULL), 0);
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
    int ms; /* is released by itself */
};

static void block(void *arg)
{
    struct block *b = arg;
    atomic_fetch_add(&b->started, 1);
    if (b->ms)
        sleep_ms(b->ms);
    else
        wait_for(&b->released, 1);
}

static void a_call_that_did_not_begin_times_out_and_never_runs(void **state)
{
    struct fixture *f = setup(state, true);
    atomic_int after = 0, ran = 0;
    struct block b = {0};
    assert_int_equal(sm_loop_post(f->loop, block, &b, NULL), 0);
    wait_for(&b.started, 1);
    sm_error err;
    assert_int_equal(sm_loop_call(f->loop, increment, &ran, 5, &err), -SM_ETIMEOUT);
    atomic_store(&b.released, 1);
    assert_int_equal(sm_loop_call(f->loop, increment, &after, -1, NULL), 0);
    assert_int_equal(ran, 0);
    /* One that has begun is waited for, whatever its bound; it may not begin within that on a busy host. */
    int rc;
    for (int bound = 50; bound < PATIENCE_MS; bound *= 4) {
        b = (struct block){.ms = 2 * bound};
        rc = sm_loop_call(f->loop, block, &b, bound, NULL);
        if (b.started)
            break;
        assert_int_equal(rc, -SM_ETIMEOUT);
    }
    assert_int_equal(b.started, 1);
    assert_int_equal(rc, 0);
    finish(f);
}

#define CALLERS 4
#define CALLS   200

static void *caller(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < CALLS; i++) {
        assert_int_equal(sm_loop_call(f->loop, increment, &f->count, -1, NULL), 0);
        assert_int_equal(sm_loop_post(f->loop, increment, &f->other_count, NULL), 0);
    }
    return NULL;
}

static void many_threads_call_and_post(void **state)
{
    struct fixture *f = setup(state, true);
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; i++)
        pthread_create(&threads[i], NULL, caller, f);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    sm_loop_stop(f->loop); /* runs what is queued */
    assert_int_equal(f->count, CALLERS * CALLS);
    assert_int_equal(f->other_count, CALLERS * CALLS);
    finish(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_run_on_the_thread_and_events_arrive),
        cmocka_unit_test(without_a_thread_calls_are_direct),
        cmocka_unit_test(a_removed_watch_is_not_called_in_the_same_round),
        cmocka_unit_test(timers_fire_once_and_can_be_armed_again),
        cmocka_unit_test(pause_holds_events_and_posts_but_serves_calls),
        cmocka_unit_test(a_call_that_did_not_begin_times_out_and_never_runs),
        cmocka_unit_test(many_threads_call_and_post),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
