/* The limit that `run` and `bake` set themselves: room for what a VM may take, and none beyond. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/memory_limit.h"

#define MIB (1ull << 20)

static struct rlimit before;

static int lift(void **state)
{
    (void)state;
    return setrlimit(RLIMIT_DATA, &before);
}

static bool fits(uint64_t bytes)
{
    void *p = mmap(
        NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p != MAP_FAILED && munmap(p, bytes) == 0;
}

/* RAM, two copies of it and 1.5 GiB. */
static void of_a_vm_to_be(void **state)
{
    (void)state;
    cli_limit_memory(1024 * MIB);
    assert_true(fits((3 * 1024 + 1500) * MIB));
    assert_false(fits((3 * 1024 + 1600) * MIB));
    lift(NULL);
    cli_limit_memory(0);
    assert_true(fits((3 * 256 + 1500) * MIB));
    assert_false(fits((3 * 256 + 1600) * MIB));
    cli_limit_memory(1024 * MIB); /* never more again */
    assert_false(fits((3 * 256 + 1600) * MIB));
}

static void of_one_that_is_there(void **state)
{
    struct rlimit limit;
    unsigned long pages;
    FILE *in = fopen("/proc/self/statm", "re");
    (void)state;
    assert_non_null(in);
    assert_int_equal(fscanf(in, "%*u %*u %*u %*u %*u %lu", &pages), 1);
    fclose(in);
    uint64_t data = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    cli_limit_memory_now();
    assert_int_equal(getrlimit(RLIMIT_DATA, &limit), 0);
    assert_in_range(limit.rlim_cur, 2 * data + 1500 * MIB, 2 * data + 1600 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(of_a_vm_to_be, lift),
        cmocka_unit_test_teardown(of_one_that_is_there, lift),
    };
    if (getrlimit(RLIMIT_DATA, &before))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
