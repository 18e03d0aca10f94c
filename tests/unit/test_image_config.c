/* What is run, according to image config and caller; the expected values are podman's behaviour. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "vm/command.h"

#define LIST(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static const char full[] =
    "{\"config\":{\"Entrypoint\":[\"/"
    "entry\",\"-x\"],\"Cmd\":[\"a\",\"b\"],\"Env\":[\"A=1\",\"B=2\"],"
    "\"User\":\"app:staff\",\"WorkingDir\":\"/srv\",\"StopSignal\":\"SIGQUIT\"}}";

static void assert_list(const struct sm_strv *v, const char *const *expected)
{
    size_t n = 0;
    for (; expected[n]; n++) {
        assert_true(n < v->count);
        assert_string_equal(v->items[n], expected[n]);
    }
    assert_int_equal(v->count, n);
}

static void assert_argv(const char *json, const sm_exec_config *exec, const char *const *expected)
{
    struct sm_oci_config c;
    struct sm_strv argv = {0};
    assert_int_equal(sm_oci_config_parse(&c, json, NULL), 0);
    assert_int_equal(sm_command_argv(&c, exec, &argv, NULL), 0);
    assert_list(&argv, expected);
    sm_strv_clear(&argv);
    sm_oci_config_clear(&c);
}

static void test_fields(void **state)
{
    struct sm_oci_config c;
    assert_int_equal(sm_oci_config_parse(&c, full, NULL), 0);
    assert_string_equal(c.user, "app:staff");
    assert_string_equal(c.working_dir, "/srv");
    assert_int_equal(c.stop_signal, SIGQUIT);
    sm_oci_config_clear(&c);
    assert_int_equal(sm_oci_config_parse(&c, "{}", NULL), 0);
    assert_string_equal(c.user, "");
    assert_string_equal(c.working_dir, "");
    assert_int_equal(c.stop_signal, SIGTERM);
    sm_oci_config_clear(&c);
    assert_int_equal(sm_oci_config_parse(&c, "{\"config\":{\"Cmd\":null,\"User\":null}}", NULL), 0);
    sm_oci_config_clear(&c);
}

static void test_argv(void **state)
{
    assert_argv(full, &(sm_exec_config){0}, LIST("/entry", "-x", "a", "b"));
    assert_argv(full, &(sm_exec_config){.args = LIST("c")}, LIST("/entry", "-x", "c"));
    /* another entrypoint drops the Cmd; an empty one does not */
    assert_argv(full, &(sm_exec_config){.entrypoint = LIST("/bin/sh")}, LIST("/bin/sh"));
    assert_argv(full, &(sm_exec_config){.entrypoint = LIST("/bin/sh"), .args = LIST("-c", "x")},
        LIST("/bin/sh", "-c", "x"));
    assert_argv(full, &(sm_exec_config){.entrypoint = LIST()}, LIST("a", "b"));
    assert_argv(full, &(sm_exec_config){.argv = LIST("ls")}, LIST("ls"));
    assert_argv("{\"config\":{\"Cmd\":[\"sh\"]}}", &(sm_exec_config){0}, LIST("sh"));
    assert_argv("{\"config\":{\"Entrypoint\":\"/one\"}}", &(sm_exec_config){0}, LIST("/one"));
}

static void test_nothing_to_run(void **state)
{
    struct sm_oci_config c;
    struct sm_strv argv = {0};
    sm_error err;
    assert_int_equal(sm_oci_config_parse(&c, "{}", NULL), 0);
    assert_int_equal(sm_command_argv(&c, &(sm_exec_config){0}, &argv, &err), -SM_EINVAL);
    assert_non_null(strstr(err.message, "no command"));
    assert_int_equal(
        sm_command_argv(&c, &(sm_exec_config){.args = LIST("")}, &argv, &err), -SM_EINVAL);
    sm_strv_clear(&argv);
    sm_oci_config_clear(&c);
}

static void test_env(void **state)
{
    struct sm_oci_config c;
    struct sm_strv env = {0};
    assert_int_equal(sm_oci_config_parse(&c, full, NULL), 0);
    assert_int_equal(
        sm_command_env(
            &c, &(sm_exec_config){.env = LIST("B=two", "C=", "BB=3", "C=4=5")}, &env, NULL),
        0);
    assert_list(&env, LIST("A=1", "B=two", "C=4=5", "BB=3"));
    sm_strv_clear(&env);
    assert_int_equal(
        sm_command_env(&c, &(sm_exec_config){.env = LIST("novalue")}, &env, NULL), -SM_EINVAL);
    assert_int_equal(
        sm_command_env(&c, &(sm_exec_config){.env = LIST("=x")}, &env, NULL), -SM_EINVAL);
    sm_strv_clear(&env);
    sm_oci_config_clear(&c);
}

/* Which streams there are for output does not matter; anything else does. */
static void test_nothing_asked_for(void **state)
{
    const sm_exec_config asks[] = {
        {.argv = LIST("ls")},
        {.entrypoint = LIST("sh")},
        {.args = LIST("-l")},
        {.env = LIST("A=1")},
        {.cwd = "/"},
        {.user = "root"},
        {.tty = true},
        {.stdin_fd = SM_FD_STDIN},
        {.timeout_ms = 1},
    };
    assert_true(sm_exec_is_default(NULL));
    assert_true(sm_exec_is_default(&(sm_exec_config){0}));
    assert_true(sm_exec_is_default(&(sm_exec_config){.stdout_fd = 1, .stderr_fd = SM_FD_PIPE}));
    for (size_t i = 0; i < sizeof(asks) / sizeof(asks[0]); i++)
        assert_false(sm_exec_is_default(&asks[i]));
}

static void test_hostile(void **state)
{
    static const char *const bad[] = {
        "",
        "{",
        "{\"config\":{\"Cmd\":[1]}}",
        "{\"config\":{\"Cmd\":{}}}",
        "{\"config\":{\"Env\":[\"a\",null]}}",
        "{\"config\":{\"User\":7}}",
        "{\"config\":{\"StopSignal\":[]}}",
        "{\"config\":{\"Cmd\":[\"a\\u0000b\"]}}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct sm_oci_config c;
        sm_error err;
        assert_int_equal(sm_oci_config_parse(&c, bad[i], &err), -SM_ECORRUPT);
        assert_null(c.cmd.items);
        assert_null(c.env.items);
    }
}

static void test_signals(void **state)
{
    assert_int_equal(sm_signal_number("SIGTERM"), 15);
    assert_int_equal(sm_signal_number("term"), 15);
    assert_int_equal(sm_signal_number("9"), 9);
    assert_int_equal(sm_signal_number("SIGRTMIN+3"), 37);
    assert_int_equal(sm_signal_number("RTMAX-1"), 63);
    assert_int_equal(sm_signal_number("SIGRTMIN+40"), 0);
    assert_int_equal(sm_signal_number("SIGRTMIN+9223372036854775807"), 0);
    assert_int_equal(sm_signal_number("SIGRTMAX-9223372036854775808"), 0);
    assert_int_equal(sm_signal_number("SIGRTMIN+30"), 64);
    assert_int_equal(sm_signal_number("0"), 0);
    assert_int_equal(sm_signal_number("99"), 0);
    assert_int_equal(sm_signal_number("-3"), 0);
    assert_int_equal(sm_signal_number(""), 0);
    assert_int_equal(sm_signal_number("SIGNOTHING"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_argv),
        cmocka_unit_test(test_nothing_to_run),
        cmocka_unit_test(test_env),
        cmocka_unit_test(test_nothing_asked_for),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
