/* How long a guest is waited for: by its own time, not by the host's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "guest_code.h"
#include "machine_parts.h"
#include "patience.h"
#include "util/guest_wait.h"
#include "vmm/machine.h"

#define MS   1000000ull
#define TICK (SM_WAIT_TICK_MS * MS)

/* ---- the account --------------------------------------------------------------------------- */

/* Ticks until the wait is over, at most `most`: in each the guest runs and waits for so much of
 * it. */
static unsigned ticks(
    unsigned limit_ms, unsigned slowness, uint64_t ran, uint64_t waited, unsigned most)
{
    struct sm_guest_wait w = {.limit_ms = limit_ms, .slowness = slowness};
    unsigned n = 0;
    assert_false(sm_guest_wait_account(&w, 7 * TICK, 100 * TICK, 50 * TICK)); /* where it begins */
    while (n++ < most &&
           !sm_guest_wait_account(&w, (7 + n) * TICK, 100 * TICK + n * ran, 50 * TICK + n * waited))
        ;
    return n;
}

static void a_guest_that_runs_or_idles_has_its_time(void **state)
{
    assert_int_equal(ticks(120000, 1, TICK, 0, 1000), 480);
    assert_int_equal(ticks(120000, 1, 0, 0, 1000), 480);
    assert_int_equal(ticks(120000, 1, TICK / 2, 0, 1000), 480);
    /* several vCPUs at once are not quicker */
    assert_int_equal(ticks(120000, 1, 4 * TICK, 0, 1000), 480);
}

static void waiting_for_a_cpu_does_not_count(void **state)
{
    assert_int_equal(ticks(120000, 1, TICK / 10, TICK - TICK / 10, 10000), 4800);
    assert_int_equal(ticks(120000, 1, 0, TICK, 10000), 10001); /* never */
    assert_int_equal(ticks(120000, 1, TICK / 10, 3 * TICK, 10000), 4800);
}

static void an_emulated_guest_may_run_longer_but_not_idle_longer(void **state)
{
    assert_int_equal(ticks(120000, 5, TICK, 0, 10000), 2400);
    assert_int_equal(ticks(120000, 5, 0, 0, 10000), 480);
}

static void what_the_kernel_tells_late_is_believed(void **state)
{
    struct sm_guest_wait w = {.limit_ms = 120000, .slowness = 1};
    sm_guest_wait_account(&w, 0, 0, 0);
    for (unsigned n = 1; n <= 400; n++) /* a hundred seconds in a queue, told at the end */
        assert_false(sm_guest_wait_account(&w, n * TICK, 0, 0));
    assert_false(sm_guest_wait_account(&w, 401 * TICK, 0, 401 * TICK));
    assert_int_equal(w.idle_ns, 0);
}

static void time_in_which_we_stood_still_does_not_count(void **state)
{
    struct sm_guest_wait w = {.limit_ms = 120000, .slowness = 1};
    sm_guest_wait_account(&w, 0, 0, 0);
    assert_false(sm_guest_wait_account(&w, 3600000 * MS, 0, 0));
    assert_true(w.idle_ns <= 2 * TICK);
}

/* ---- real guests --------------------------------------------------------------------------- */

GUEST(guest_spins, "1: jmp 1b\n");
GUEST(guest_halts, "1: hlt\njmp 1b\n");

static struct sm_machine *booted(const uint8_t *code, size_t n)
{
    if (access("/dev/kvm", R_OK | W_OK))
        skip();
    char path[32];
    int fd = guest_kernel(code, n, path);
    const struct sm_machine_config config = {.memory_bytes = 64 << 20, .vcpus = 1, .kernel = path};
    struct sm_machine *m;
    sm_error err;
    if (make_machine(&m, &config, &err) || sm_machine_boot(m, &err))
        fail_msg("%s", err.message);
    close(fd);
    return m;
}

/* Waits for it for `limit_ms` of its time. */
static struct sm_guest_wait waited(struct sm_machine *m, int limit_ms)
{
    struct sm_guest_wait w;
    sm_guest_wait_begin(&w, sm_machine_clock(m), limit_ms);
    int64_t most = sm_deadline(PATIENCE_MS);
    do {
        poll(NULL, 0, sm_wait_slice(&w.wait));
        if (sm_deadline_left(most) == 0)
            fail_msg("the wait is not over");
    } while (!sm_wait_over(&w.wait));
    return w;
}

static void a_guest_that_spins_and_one_that_halts_are_given_up(void **state)
{
    struct sm_machine *m = booted(guest_spins, GUEST_BYTES(guest_spins));
    struct sm_guest_wait w = waited(m, 200);
    unsigned slowness = w.clock->is_emulated(w.clock->arg) ? 5 : 1;
    assert_int_equal(w.slowness, slowness);
    assert_true(w.ran_ns >= w.idle_ns);
    assert_true(w.idle_ns + w.ran_ns / slowness >= 200 * MS);
    sm_error err;
    assert_int_equal(sm_wait_failed(&w.wait, &err, "no word of it"), -SM_ETIMEOUT);
    assert_non_null(strstr(err.message, "no word of it within "));
    assert_non_null(strstr(err.message, "the guest ran for "));
    sm_machine_close(m);

    m = booted(guest_halts, GUEST_BYTES(guest_halts));
    w = waited(m, 200);
    assert_true(w.idle_ns >= 150 * MS);
    sm_machine_close(m);
}

static void a_clock_is_a_clock(void **state)
{
    struct sm_machine *m = booted(guest_halts, GUEST_BYTES(guest_halts));
    struct sm_guest_wait w;
    int64_t begin = sm_now_ms();
    sm_guest_wait_begin_or(&w, sm_machine_clock(m), 120000, 50);
    while (!sm_wait_over(&w.wait))
        poll(NULL, 0, sm_wait_slice(&w.wait));
    assert_true(sm_now_ms() - begin >= 50);
    assert_string_equal(w.wait.why, "");
    sm_machine_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_that_runs_or_idles_has_its_time),
        cmocka_unit_test(waiting_for_a_cpu_does_not_count),
        cmocka_unit_test(an_emulated_guest_may_run_longer_but_not_idle_longer),
        cmocka_unit_test(what_the_kernel_tells_late_is_believed),
        cmocka_unit_test(time_in_which_we_stood_still_does_not_count),
        cmocka_unit_test(a_guest_that_spins_and_one_that_halts_are_given_up),
        cmocka_unit_test(a_clock_is_a_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
