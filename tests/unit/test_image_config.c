/* What is run, according to image config and caller; the expected values are podman's behaviour. */
#include <regex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "image/json.h"
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
    assert_int_equal(c.stop_signal, 0);
    sm_oci_config_clear(&c);
    assert_int_equal(sm_oci_config_parse(&c, "{\"config\":{\"Cmd\":null,\"User\":null}}", NULL), 0);
    sm_oci_config_clear(&c);
}

/* A number that nobody here reads is written as it was, as long as there is one that is not too
 * large for that. */
static void test_numbers(void **state)
{
    static const struct {
        const char *json, *written; /* NULL: it is refused */
    } cases[] = {
        {"{\"Memory\":0,\"a\":9223372036854775807}", "{\"Memory\":0,\"a\":9223372036854775807}"},
        {"{\"Memory\":0,\"a\":9223372036854775808}",
            "{\"Memory\":0.0,\"a\":9.2233720368547758e18}"},
        {"{\"a\":1e400}", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        auto_json *root = NULL;
        int rc = sm_json_parse_config(cases[i].json, strlen(cases[i].json), &root, NULL);
        assert_int_equal(rc, cases[i].written ? 0 : -SM_ECORRUPT);
        auto_free char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
        if (cases[i].written)
            assert_string_equal(text, cases[i].written);
    }
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
    const sm_exec_config unset = {.default_env = LIST("A=0", "D=1", "DD=2"),
        .unset_env = LIST("B", "D", "", "nosuch"),
        .env = LIST("B=mine")};
    assert_int_equal(sm_command_env(&c, &unset, &env, NULL), 0);
    assert_list(&env, LIST("A=1", "DD=2", "B=mine"));
    sm_strv_clear(&env);
    const sm_exec_config bare = {
        .default_env = LIST("D=1"), .unset_all_env = true, .env = LIST("E=1")};
    assert_int_equal(sm_command_env(&c, &bare, &env, NULL), 0);
    assert_list(&env, LIST("E=1"));
    sm_strv_clear(&env);
    assert_int_equal(
        sm_command_env(&c, &(sm_exec_config){.env = LIST("novalue")}, &env, NULL), -SM_EINVAL);
    assert_int_equal(
        sm_command_env(&c, &(sm_exec_config){.env = LIST("=x")}, &env, NULL), -SM_EINVAL);
    sm_strv_clear(&env);
    sm_oci_config_clear(&c);
}

/* A config by the value of one key, as podman 4.3 and docker read it; where they differ, or refuse
 * what others write, ours is the mildest that means one thing. */
static const struct shape {
    const char *key, *value;
    const char *refused; /* words of the error, or NULL */
    const char *text;    /* the directory, the user; the argv and the environment as one text */
    int signal;
} shapes[] = {
    {"StopSignal", "\"15\"", NULL, NULL, SIGTERM},
    {"StopSignal", "3", NULL, NULL, SIGQUIT},
    {"StopSignal", "3.5", NULL, NULL, SIGTERM},
    {"StopSignal", "1e300", NULL, NULL, SIGTERM},
    {"StopSignal", "-3", NULL, NULL, SIGTERM},
    {"StopSignal", "\"RTMIN+3\"", NULL, NULL, 37},
    {"StopSignal", "\"SIGRTMIN+3\"", NULL, NULL, 37},
    {"StopSignal", "\"sigquit\"", NULL, NULL, SIGQUIT},
    {"StopSignal", "\"QUIT\"", NULL, NULL, SIGQUIT},
    {"StopSignal", "\"SIGNOTHING\"", NULL, NULL, SIGTERM},
    {"StopSignal", "\"0\"", NULL, NULL, SIGTERM},
    {"StopSignal", "\"99\"", NULL, NULL, SIGTERM},
    {"StopSignal", "99", NULL, NULL, SIGTERM},
    {"StopSignal", "\"\"", NULL, NULL, SIGTERM},
    {"StopSignal", "null", NULL, NULL, SIGTERM},
    {"StopSignal", "{}", "StopSignal .* is no string", NULL, 0},
    {"WorkingDir", "\"\"", NULL, "", 0},
    {"WorkingDir", "null", NULL, "", 0},
    {"WorkingDir", "\"/\"", NULL, "/", 0},
    {"WorkingDir", "\".\"", NULL, "/", 0},
    {"WorkingDir", "\"app\"", NULL, "/app", 0},
    {"WorkingDir", "\"./app/\"", NULL, "/app", 0},
    {"WorkingDir", "\"/a/../b\"", NULL, "/b", 0},
    {"WorkingDir", "\"../../etc\"", NULL, "/etc", 0},
    {"WorkingDir", "\"//usr//bin/\"", NULL, "/usr/bin", 0},
    {"WorkingDir", "\"/a\\u0000b\"", "WorkingDir .* has a NUL", NULL, 0},
    {"WorkingDir", "[]", "WorkingDir .* is no string", NULL, 0},
    {"Env", "null", NULL, "", 0},
    {"Env", "[]", NULL, "", 0},
    {"Env", "[\"A\"]", NULL, "", 0},
    {"Env", "[\"PATH\",\"B=\"]", NULL, "B=|", 0},
    {"Env", "[\"PATH=\"]", NULL, "PATH=|", 0},
    {"Env", "[\"A=1\",\"B=x=y\",\"A=2\"]", NULL, "A=2|B=x=y|", 0},
    {"Env", "\"A=1\"", NULL, "A=1|", 0},
    {"Env", "[\"=x\"]", "variable without a name: '=x'", NULL, 0},
    {"Env", "[\"\"]", "variable without a name: ''", NULL, 0},
    {"Env", "[null]", "Env .* an entry that is no string", NULL, 0},
    {"Env", "[\"A=b\\u0000c\"]", "Env .* an entry with a NUL", NULL, 0},
    {"Env", "{\"A\":\"1\"}", "Env .* is no list", NULL, 0},
    {"Entrypoint", "null", NULL, "cmd|", 0},
    {"Entrypoint", "[]", NULL, "cmd|", 0},
    {"Entrypoint", "\"\"", NULL, "cmd|", 0},
    {"Entrypoint", "[\"\"]", NULL, "cmd|", 0},
    {"Entrypoint", "\"sh\"", NULL, "sh|cmd|", 0},
    {"Entrypoint", "\"sh -c\"", NULL, "sh -c|cmd|", 0},
    {"Entrypoint", "[\"a\",\"\"]", NULL, "a||cmd|", 0},
    {"Entrypoint", "{}", "Entrypoint .* is no list", NULL, 0},
    {"Entrypoint", "[\"a\\u0000b\"]", "Entrypoint .* an entry with a NUL", NULL, 0},
    {"User", "null", NULL, "", 0},
    {"User", "\":1000\"", NULL, ":1000", 0},
    {"User", "\"1000:\"", NULL, "1000:", 0},
    {"User", "\"0x10\"", NULL, "0x10", 0},
    {"User", "\"4294967295\"", NULL, "4294967295", 0},
    {"User", "\"-1\"", NULL, "-1", 0},
    {"User", "1000", "User .* is no string", NULL, 0},
    {"ExposedPorts", "null", NULL, "", 0},
    {"ExposedPorts", "{}", NULL, "", 0},
    {"ExposedPorts", "{\"80\":{}}", NULL, "80/tcp|", 0},
    {"ExposedPorts", "{\"80/TCP\":null}", NULL, "80/tcp|", 0},
    {"ExposedPorts", "{\"53/udp\":{}}", NULL, "53/udp|", 0},
    {"ExposedPorts", "{\"65534-65535/udp\":{}}", NULL, "65534/udp|65535/udp|", 0},
    {"ExposedPorts", "{\"80/sctp\":{}}", "'80/sctp', which is no port", NULL, 0},
    {"ExposedPorts", "{\"\":{}}", "'', which is no port", NULL, 0},
    {"ExposedPorts", "{\"http\":{}}", "'http', which is no port", NULL, 0},
    {"ExposedPorts", "{\"0\":{}}", "'0', which is no port", NULL, 0},
    {"ExposedPorts", "{\"8010-8000\":{}}", "'8010-8000', which is no port", NULL, 0},
    {"ExposedPorts", "{\"1-65536\":{}}", "'1-65536', which is no port", NULL, 0},
    {"ExposedPorts", "{\"1-\":{}}", "'1-', which is no port", NULL, 0},
    {"ExposedPorts", "{\"-1\":{}}", "'-1', which is no port", NULL, 0},
    {"ExposedPorts", "{\"1-5000\":{}}", "exposes more than 4096 ports", NULL, 0},
    {"ExposedPorts", "{\"1-4000\":{},\"1-99/udp\":{}}", "exposes more than 4096 ports", NULL, 0},
    {"ExposedPorts", "[\"80/tcp\"]", "ExposedPorts .* is no object", NULL, 0},
    /* nobody looks at these */
    {"Healthcheck", "{\"Test\":[\"CMD-SHELL\",\"true\"],\"Interval\":1e9}", NULL, "", 0},
    {"Volumes", "{\"/vol\":{}}", NULL, "", 0},
    {"OnBuild", "[\"RUN false\"]", NULL, "", 0},
    {"Labels", "{\"a\":\"x\\u0000y\"}", NULL, "", 0},
    {"Memory", "18446744073709551616", NULL, "", 0},
    {"Whatever", "{\"x\":[1,2]}", NULL, "", 0},
};

static void join(const struct sm_strv *v, char *text, size_t size)
{
    *text = '\0';
    for (size_t i = 0; i < v->count; i++) {
        size_t n = strlen(text);
        snprintf(text + n, size - n, "%s|", v->items[i]);
    }
}

static void show(const struct shape *s, const struct sm_oci_config *c, char *text, size_t size)
{
    struct sm_strv argv = {0}, ports = {0};
    *text = '\0';
    if (strcmp(s->key, "WorkingDir") == 0) {
        snprintf(text, size, "%s", c->working_dir);
    } else if (strcmp(s->key, "User") == 0) {
        snprintf(text, size, "%s", c->user);
    } else if (strcmp(s->key, "Env") == 0) {
        join(&c->env, text, size);
    } else if (strcmp(s->key, "Entrypoint") == 0) {
        assert_int_equal(sm_command_argv(c, &(sm_exec_config){0}, &argv, NULL), 0);
        join(&argv, text, size);
    } else if (strcmp(s->key, "ExposedPorts") == 0) {
        assert_int_equal(sm_oci_exposed_ports(c, &ports, NULL), 0);
        join(&ports, text, size);
    }
    sm_strv_clear(&argv);
    sm_strv_clear(&ports);
}

static void assert_refused(const struct shape *s, int rc, const sm_error *err)
{
    regex_t words;
    if (rc == 0)
        fail_msg("%s: %s was taken", s->key, s->value);
    assert_int_equal(regcomp(&words, s->refused, REG_EXTENDED | REG_NOSUB), 0);
    if (regexec(&words, err->message, 0, NULL, 0) != 0)
        fail_msg("%s: %s: %s", s->key, s->value, err->message);
    regfree(&words);
}

static void test_every_shape(void **state)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct shape *s = &shapes[i];
        struct sm_oci_config c;
        struct sm_strv ports = {0};
        sm_error err = {0};
        char json[200], text[200];
        snprintf(
            json, sizeof(json), "{\"config\":{\"Cmd\":[\"cmd\"],\"%s\":%s}}", s->key, s->value);
        int rc = sm_oci_config_parse(&c, json, &err);
        if (rc == 0 && s->refused) /* only who asks for the ports is told */
            rc = sm_oci_exposed_ports(&c, &ports, &err);
        if (s->refused) {
            assert_refused(s, rc, &err);
        } else if (rc != 0) {
            fail_msg("%s: %s: %s", s->key, s->value, err.message);
        } else if (s->signal) {
            int signal;
            assert_int_equal(
                sm_command_stop_signal(&c, &(sm_exec_config){0}, false, &signal, NULL), 0);
            assert_int_equal(signal, s->signal);
        } else {
            show(s, &c, text, sizeof(text));
            assert_string_equal(text, s->text);
        }
        sm_strv_clear(&ports);
        sm_oci_config_clear(&c);
    }
}

/* Only where nobody says anything is it what systemd knows as an orderly end. */
static void systemd_has_a_stop_signal_of_its_own(void **state)
{
    const struct {
        const char *image, *asked;
        int usual, systemd;
    } cases[] = {
        {"{}", NULL, SIGTERM, 37},
        {"{\"config\":{\"StopSignal\":\"SIGTERM\"}}", NULL, SIGTERM, SIGTERM},
        {"{\"config\":{\"StopSignal\":\"INT\"}}", NULL, SIGINT, SIGINT},
        {"{}", "TERM", SIGTERM, SIGTERM},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const sm_exec_config exec = {.stop_signal = cases[i].asked};
        struct sm_oci_config c;
        int signal;
        assert_int_equal(sm_oci_config_parse(&c, cases[i].image, NULL), 0);
        assert_int_equal(sm_command_stop_signal(&c, &exec, false, &signal, NULL), 0);
        assert_int_equal(signal, cases[i].usual);
        assert_int_equal(sm_command_stop_signal(&c, &exec, true, &signal, NULL), 0);
        assert_int_equal(signal, cases[i].systemd);
        sm_oci_config_clear(&c);
    }
}

/* What a container's own command gets beside what it is asked with. */
static void systemd_is_told_where_it_is(void **state)
{
    const struct {
        const char *argv, *env, *want;
    } cases[] = {
        {"/sbin/init", NULL, "container=oci"},
        {"/sbin/init", "container=lxc", "container=lxc"},
        {"/bin/sh", NULL, NULL},
    };
    struct sm_oci_config c;
    assert_int_equal(sm_oci_config_parse(&c, "{}", NULL), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const sm_exec_config exec = {.argv = (const char *const[]){cases[i].argv, NULL},
            .env = (const char *const[]){cases[i].env, NULL}};
        auto_command command = {0};
        bool systemd;
        assert_int_equal(sm_command_describe(&c, &exec, &command, NULL), 0);
        assert_int_equal(sm_command_be_first(&exec, &command, &systemd, NULL), 0);
        assert_int_equal(systemd, cases[i].want != NULL);
        assert_int_equal(
            command.wire.flags, SM_WIRE_EXEC_FIRST | (cases[i].want ? SM_WIRE_EXEC_SYSTEMD : 0));
        assert_int_equal(command.env.count, cases[i].want ? 1 : 0);
        if (cases[i].want)
            assert_string_equal(command.wire.env.strv[0], cases[i].want);
    }
    sm_oci_config_clear(&c);
}

static void test_no_config_at_all(void **state)
{
    struct sm_oci_config c;
    sm_error err;
    assert_int_equal(sm_oci_config_parse(&c, "{\"config\":null}", NULL), 0);
    sm_oci_config_clear(&c);
    assert_int_equal(sm_oci_config_parse(&c, "{\"config\":[1]}", &err), -SM_ECORRUPT);
    assert_non_null(strstr(err.message, "config in the image's configuration is no object"));
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
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_argv),
        cmocka_unit_test(test_nothing_to_run),
        cmocka_unit_test(test_env),
        cmocka_unit_test(test_every_shape),
        cmocka_unit_test(systemd_has_a_stop_signal_of_its_own),
        cmocka_unit_test(systemd_is_told_where_it_is),
        cmocka_unit_test(test_no_config_at_all),
        cmocka_unit_test(test_nothing_asked_for),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
