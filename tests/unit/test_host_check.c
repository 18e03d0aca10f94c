/* sm_host_check: what it says of the store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <supermachine.h>

static enum sm_check_status status;
static char detail[1200];

static void take_store(void *arg, const sm_check *check)
{
    if (strcmp(check->name, "store") == 0) {
        status = check->status;
        strncpy(detail, check->detail, sizeof(detail) - 1);
    }
}

/* The same answer as sm_store_open's. */
static void says(const char *dir, enum sm_check_status expected, const char *words)
{
    sm_host_check(dir, take_store, NULL);
    if (status != expected || !strstr(detail, words))
        fail_msg("%s: %d, '%s'", dir ? dir : "(default)", status, detail);
}

static void places_that_are_not_there_yet(void **state)
{
    char dir[] = "/tmp/sm-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chdir(dir), 0);
    says("relative", SM_CHECK_OK, "relative, ");
    says("relative/and/more", SM_CHECK_OK, "relative/and/more, ");
    says(dir, SM_CHECK_OK, dir);
    setenv("HOME", dir, 1);
    unsetenv("XDG_DATA_HOME");
    says(NULL, SM_CHECK_OK, "/.local/share/supermachine, ");
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void no_place_at_all(void **state)
{
    unsetenv("HOME");
    unsetenv("XDG_DATA_HOME");
    says(NULL, SM_CHECK_FAILED, "neither XDG_DATA_HOME nor HOME is set");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_that_are_not_there_yet),
        cmocka_unit_test(no_place_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
