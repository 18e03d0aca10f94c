#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "util/error.h"

static void sentence_grows_from_the_front(void **state)
{
    (void)state;
    sm_error err;
    assert_int_equal(sm_error_errno(&err, ENOSPC, "cannot write %s", "/x"), -SM_ENOSPC);
    assert_string_equal(err.message, "cannot write /x: No space left on device");
    assert_int_equal(err.sys_errno, ENOSPC);
    assert_int_equal(sm_error_prefix(&err, -SM_ENOSPC, "layer %d", 3), -SM_ENOSPC);
    assert_string_equal(err.message, "layer 3: cannot write /x: No space left on device");
}

static void null_error_is_accepted(void **state)
{
    (void)state;
    assert_int_equal(sm_error_set(NULL, SM_EINVAL, "x"), -SM_EINVAL);
    assert_int_equal(sm_error_errno(NULL, ENOENT, "x"), -SM_ENOTFOUND);
    assert_int_equal(sm_error_prefix(NULL, -SM_EIO, "x"), -SM_EIO);
}

static void long_text_is_cut_not_overrun(void **state)
{
    (void)state;
    sm_error err;
    char text[2000];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    sm_error_set(&err, SM_EINVAL, "%s", text);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
    sm_error_prefix(&err, -SM_EINVAL, "%s", text);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sentence_grows_from_the_front),
        cmocka_unit_test(null_error_is_accepted),
        cmocka_unit_test(long_text_is_cut_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
