/* sm_host_check: what it says of the store; and that it leaves no process behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
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

static void take_confinement(void *arg, const sm_check *check)
{
    (void)arg;
    if (strcmp(check->name, "confinement") == 0)
        strncpy(detail, check->detail, sizeof(detail) - 1);
}

/* The process that tells the layers lives on for a moment after it has told them. */
static void who_is_given_orphans_meets_none(void **state)
{
    (void)state;
    char dir[] = "/tmp/sm-test-XXXXXX", program[64];
    assert_non_null(mkdtemp(dir));
    snprintf(program, sizeof(program), "%s/supermachine-vm", dir);
    FILE *f = fopen(program, "we");
    assert_non_null(f);
    fputs("#!/bin/sh\nprintf 'in force\\tone\\tyes\\n' >&3\nexec 3>&-\nexec sleep 0.1\n", f);
    assert_int_equal(fchmod(fileno(f), 0700), 0);
    assert_int_equal(fclose(f), 0);
    setenv("SUPERMACHINE_LIBEXEC_DIR", dir, 1);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    sm_host_check(dir, take_confinement, NULL);
    assert_string_equal(detail, "all 1 layers around a VM's processes");
    assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
    unsetenv("SUPERMACHINE_LIBEXEC_DIR");
    assert_int_equal(unlink(program), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_that_are_not_there_yet),
        cmocka_unit_test(no_place_at_all),
        cmocka_unit_test(who_is_given_orphans_meets_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
