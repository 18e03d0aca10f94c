/* Errors as sentences: they grow on the way up, are cut and never overrun, and hold nothing that a
 * terminal obeys, whoever wrote it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "util/error.h"
#include "util/text.h"

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

static const struct {
    const char *text, *line, *lines;
} foreign[] = {
    {"", "", ""},
    {"plain \u00e4\u20ac\U0001f600", "plain \u00e4\u20ac\U0001f600",
        "plain \u00e4\u20ac\U0001f600"},
    {"a\nb\r\nc\td\re", "a?b??c?d?e", "a\nb\nc\td?e"},
    {"\033[31mred\033]0;title\007\x7f\b", "?[31mred?]0;title???", "?[31mred?]0;title???"},
    {"\xc2\x80\xc2\x9b"
     "31m\xc2\x9f\u00a0",
        "??31m?\u00a0", "??31m?\u00a0"}, /* C1 */
    {"\x80\x9b\xff\xc0\x9b\xe0\x80\x9b", "????????",
        "????????"}, /* bytes, and longer than need be */
    {"\xed\xa0\x80\xf4\x90\x80\x80\xf8", "????????", "????????"}, /* surrogate, beyond the last */
    {"cut \xe2\x82", "cut ??", "cut ??"},
    {"cut \xf0\x9f\x98", "cut ???", "cut ???"},
    {"\xc3\n", "??", "?\n"},
};

static void foreign_text_becomes_harmless(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
        char text[64];
        strcpy(text, foreign[i].text);
        sm_text_clean(text, false);
        assert_string_equal(text, foreign[i].line);
        strcpy(text, foreign[i].text);
        sm_text_clean(text, true);
        assert_string_equal(text, foreign[i].lines);
    }
}

static void a_sentence_is_text(void **state)
{
    (void)state;
    sm_error err;
    sm_error_set(&err, SM_EINVAL, "it said %s\nthen", "\033[2J\xc2\x9b");
    assert_string_equal(err.message, "it said ?[2J?\nthen");
    sm_error_errno(&err, ENOENT, "%s", "\007");
    assert_string_equal(err.message, "?: No such file or directory");
    sm_error_prefix(&err, -SM_ENOTFOUND, "%s", "\x9b");
    assert_string_equal(err.message, "?: ?: No such file or directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sentence_grows_from_the_front),
        cmocka_unit_test(null_error_is_accepted),
        cmocka_unit_test(long_text_is_cut_not_overrun),
        cmocka_unit_test(foreign_text_becomes_harmless),
        cmocka_unit_test(a_sentence_is_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
