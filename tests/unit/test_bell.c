/* A bell is heard until it is cleared, however often it was rung. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "util/bell.h"

static bool is_heard(const struct sm_bell *bell)
{
    struct pollfd fd = {.fd = sm_bell_fd(bell), .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

static void a_bell_is_heard_until_it_is_cleared(void **state)
{
    struct sm_bell bell;
    assert_int_equal(sm_bell_make(&bell, NULL), 0);
    assert_int_equal(fcntl(sm_bell_fd(&bell), F_GETFD), FD_CLOEXEC);
    assert_false(is_heard(&bell));
    assert_false(sm_bell_clear(&bell)); /* and did not wait */
    for (int i = 0; i < 3; i++)
        sm_bell_ring(&bell);
    assert_true(is_heard(&bell));
    assert_true(is_heard(&bell));
    assert_true(sm_bell_clear(&bell));
    assert_false(is_heard(&bell));
    assert_false(sm_bell_clear(&bell));
    sm_bell_close(&bell);
}

static void ringing_never_waits(void **state)
{
    struct sm_bell bell;
    assert_int_equal(sm_bell_make(&bell, NULL), 0);
    const uint64_t often = UINT64_MAX - 1; /* all that it counts */
    assert_int_equal(write(sm_bell_fd(&bell), &often, sizeof(often)), sizeof(often));
    sm_bell_ring(&bell);
    assert_true(sm_bell_clear(&bell));
    assert_false(is_heard(&bell));
    sm_bell_close(&bell);
}

static void closing_twice_closes_once(void **state)
{
    struct sm_bell bell;
    assert_int_equal(sm_bell_make(&bell, NULL), 0);
    int fd = sm_bell_fd(&bell);
    sm_bell_close(&bell);
    assert_int_equal(sm_bell_fd(&bell), -1);
    assert_int_equal(dup2(STDERR_FILENO, fd), fd);
    sm_bell_close(&bell);
    assert_true(fcntl(fd, F_GETFD) >= 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bell_is_heard_until_it_is_cleared),
        cmocka_unit_test(ringing_never_waits),
        cmocka_unit_test(closing_twice_closes_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
