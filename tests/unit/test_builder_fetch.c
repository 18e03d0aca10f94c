/* How images are got, on its way from the library into the program: what is written is read, and
 * nothing else is. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "builder/fetch_read.h"
#include "image/json.h"

static sm_error err;

static const struct sm_fetch all = {
    .platform = "linux/arm64/v8",
    .tls_ca = "/a \"quoted\" \\ path/\xc3\xbc\n.pem",
    .authfile = "",
    .insecure = true,
    .stall_s = 7,
    .max_bytes = INT64_MAX,
};

static void assert_same_text(const char *a, const char *b)
{
    assert_int_equal(!a, !b);
    if (a)
        assert_string_equal(a, b);
}

static void comes_back(const struct sm_fetch *fetch)
{
    auto_free char *line = NULL;
    auto_json *owner = NULL;
    struct sm_fetch got;
    assert_int_equal(sm_fetch_write(fetch, &line, &err), 0);
    assert_null(strchr(line, '\n'));
    assert_int_equal(sm_fetch_read(line, strlen(line), &got, &owner, &err), 0);
    assert_same_text(got.platform, fetch->platform);
    assert_same_text(got.tls_ca, fetch->tls_ca);
    assert_same_text(got.authfile, fetch->authfile);
    assert_int_equal(got.insecure, fetch->insecure);
    assert_int_equal(got.stall_s, fetch->stall_s);
    assert_int_equal(got.max_bytes, fetch->max_bytes);
}

static void what_is_written_is_read(void **state)
{
    comes_back(&all);
    comes_back(&(struct sm_fetch){0});
    comes_back(&(struct sm_fetch){.tls_ca = "ca.pem", .insecure = true});
}

/* A field without a row would be lost without a word: together the rows are as long as the
 * structure, but for padding. */
static void every_field_has_a_row(void **state)
{
    static const size_t sizes[] = {
        [SM_FETCH_TEXT] = sizeof(char *), [SM_FETCH_FLAG] = 1, [SM_FETCH_NUMBER] = 8};
    unsigned char covered[sizeof(struct sm_fetch)] = {0};
    size_t sum = 0;
    for (size_t i = 0; i < SM_FETCH_FIELDS; i++) {
        const struct sm_fetch_field *f = &sm_fetch_fields[i];
        assert_int_equal(covered[f->offset], 0);
        memset(covered + f->offset, 1, sizes[f->kind]);
        sum += sizes[f->kind];
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(sm_fetch_fields[j].name, f->name);
    }
    assert_in_range(sum, sizeof(struct sm_fetch) - 7, sizeof(struct sm_fetch));
}

static void what_is_not_set_is_not_written(void **state)
{
    auto_free char *line = NULL;
    assert_int_equal(sm_fetch_write(&(struct sm_fetch){.stall_s = 3}, &line, &err), 0);
    assert_string_equal(line, "{\"stall-timeout\":3}");
}

static void what_is_no_text_is_not_written(void **state)
{
    char *line = NULL;
    assert_int_equal(
        sm_fetch_write(&(struct sm_fetch){.authfile = "/\xff"}, &line, &err), -SM_EINVAL);
    assert_string_equal(err.message, "the value of authfile is not valid UTF-8");
}

static void all_else_is_refused_with_what_is_wrong(void **state)
{
    static const struct {
        const char *line, *message;
        enum sm_code code;
    } cases[] = {
        {"{\"proxy\":\"x\"}",
            "supermachine-image does not know \"proxy\": it is not of the library's version",
            SM_EINVAL},
        {"{\"tls_ca\":\"x\"}",
            "supermachine-image does not know \"tls_ca\": it is not of the library's version",
            SM_EINVAL},
        {"{\"tls-ca\":true}", "tls-ca is not a text", SM_EINVAL},
        {"{\"platform\":null}", "platform is not a text", SM_EINVAL},
        {"{\"insecure-registry\":1}", "insecure-registry is neither true nor false", SM_EINVAL},
        {"{\"stall-timeout\":\"3\"}", "stall-timeout is not a whole number from 0 to 86400",
            SM_EINVAL},
        {"{\"stall-timeout\":3.5}", "stall-timeout is not a whole number from 0 to 86400",
            SM_EINVAL},
        {"{\"stall-timeout\":-1}", "stall-timeout is not a whole number from 0 to 86400",
            SM_EINVAL},
        {"{\"stall-timeout\":86401}", "stall-timeout is not a whole number from 0 to 86400",
            SM_EINVAL},
        {"", "what the library says is not valid JSON", SM_ECORRUPT},
        {"[]", "what the library says is not a JSON object", SM_ECORRUPT},
        {"{} {}", "what the library says is not valid JSON", SM_ECORRUPT},
        {"{\"authfile\":\"a\",\"authfile\":\"b\"}", "what the library says is not valid JSON",
            SM_ECORRUPT},
        {"{\"authfile\":\"a\\u0000b\"}", "what the library says is not valid JSON", SM_ECORRUPT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sm_fetch got;
        json_t *owner = NULL;
        int rc = sm_fetch_read(cases[i].line, strlen(cases[i].line), &got, &owner, &err);
        if (rc != -(int)cases[i].code || !strstr(err.message, cases[i].message))
            fail_msg("%s: %d, %s", cases[i].line, rc, err.message);
        assert_null(owner);
    }
}

static int take(struct sm_fetch *fetch, const char *name, const char *value)
{
    for (size_t i = 0; i < SM_FETCH_FIELDS; i++)
        if (strcmp(sm_fetch_fields[i].name, name) == 0)
            return sm_fetch_take_option(fetch, &sm_fetch_fields[i], value, &err);
    fail_msg("no option %s", name);
    return -1;
}

static void options_say_the_same(void **state)
{
    struct sm_fetch got = {0};
    assert_int_equal(take(&got, "tls-ca", "ca.pem"), 0);
    assert_int_equal(take(&got, "insecure-registry", NULL), 0);
    assert_int_equal(take(&got, "max-bytes", "9223372036854775807"), 0);
    assert_string_equal(got.tls_ca, "ca.pem");
    assert_true(got.insecure);
    assert_int_equal(got.max_bytes, INT64_MAX);
    static const char *const wrong[] = {
        "", " 1", "-1", "+1", "1x", "86401", "99999999999999999999"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(take(&got, "stall-timeout", wrong[i]), -SM_EINVAL);
        assert_string_equal(err.message, "stall-timeout is not a whole number from 0 to 86400");
    }
    assert_int_equal(got.stall_s, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(every_field_has_a_row),
        cmocka_unit_test(what_is_not_set_is_not_written),
        cmocka_unit_test(what_is_no_text_is_not_written),
        cmocka_unit_test(all_else_is_refused_with_what_is_wrong),
        cmocka_unit_test(options_say_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
