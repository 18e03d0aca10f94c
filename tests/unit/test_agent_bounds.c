/* What a container may have of machines of different sizes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "bounds.h"

#define MIB ((uint64_t)1 << 20)

static void something_is_left_for_each_at_every_size(void **state)
{
    (void)state;
    for (uint64_t memory = 16 * MIB; memory <= 65536 * MIB; memory += memory / 7) {
        struct bounds b = bounds_of(memory);
        assert_true(b.group < memory && b.layer < b.group && b.processes > 0);
        assert_in_range(memory - b.group, 4 * MIB, 8 * MIB + memory / 32);
        assert_true(b.group - b.layer >= b.group / 4); /* for processes */
        assert_true(b.layer >= b.group / 2);
        assert_true(b.processes * 128 * 1024 < memory); /* the kernel's own bound is above it */
    }
}

/* The default machine: 256 MiB, of which the kernel hands out 240. */
static void a_default_machine_has_room_for_docker_s_shm(void **state)
{
    (void)state;
    struct bounds b = bounds_of(240 * MIB);
    assert_in_range(b.group, 220 * MIB, 230 * MIB);
    assert_in_range(b.layer, 160 * MIB, 176 * MIB);
    assert_in_range(b.processes, 1500, 1900);
}

static void numbers_are_text(void **state)
{
    (void)state;
    char text[BOUNDS_TEXT];
    assert_string_equal(bounds_text(text, 0), "0");
    assert_string_equal(bounds_text(text, 1048576), "1048576");
    assert_string_equal(bounds_text(text, UINT64_MAX), "18446744073709551615");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(something_is_left_for_each_at_every_size),
        cmocka_unit_test(a_default_machine_has_room_for_docker_s_shm),
        cmocka_unit_test(numbers_are_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
