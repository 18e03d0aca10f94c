/* The command line's own parsing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <getopt.h>
#include <unistd.h>
#include <cmocka.h>

#include "cli/lists.h"
#include "cli/options.h"
#include "cli/podman.h"
#include "cli/process.h"
#include "cli/values.h"
#include "util/bytes.h"

/* What options.c needs of message.c. */
int cli_fail(const char *fmt, ...)
{
    return CLI_EXIT_FAILURE;
}

static char usage_message[256];

int cli_fail_usage(const struct cli_command *command, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(usage_message, sizeof(usage_message), fmt, ap);
    va_end(ap);
    return CLI_EXIT_FAILURE;
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes; /* 0: refused */
    } cases[] = {
        {"1", 1},
        {"512m", 512ull << 20},
        {"512MiB", 512ull << 20},
        {"2G", 2ull << 30},
        {"3kb", 3 << 10},
        {"1t", 1ull << 40},
        {"", 0},
        {"m", 0},
        {"-1", 0},
        {" 1", 0},
        {"1x", 0},
        {"1.5g", 0},
        {"99999999999999999999", 0},
        {"17179869184g", 0},
        {"0x10", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes;
        bool ok = cli_parse_size(cases[i].text, &bytes);
        if (ok != (cases[i].bytes != 0) || (ok && bytes != cases[i].bytes))
            fail_msg("size '%s'", cases[i].text);
    }
}

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        int ms; /* 0: refused */
    } cases[] = {
        {"1", 1000},
        {"0.5", 500},
        {"250ms", 250},
        {"2m", 120000},
        {"1h", 3600000},
        {".1s", 100},
        {"0", 0},
        {"-1", 0},
        {"", 0},
        {"1d", 0},
        {"nan", 0},
        {"inf", 0},
        {"1e9", 0},
        {"5 s", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int ms;
        bool ok = cli_parse_duration_ms(cases[i].text, &ms);
        if (ok != (cases[i].ms != 0) || (ok && ms != cases[i].ms))
            fail_msg("duration '%s'", cases[i].text);
    }
}

static void test_numbers(void **state)
{
    uint64_t n;
    assert_true(cli_parse_number("16", 1, 16, &n));
    assert_int_equal(n, 16);
    assert_false(cli_parse_number("17", 1, 16, &n));
    assert_false(cli_parse_number("0", 1, 16, &n));
    assert_false(cli_parse_number("1.5", 1, 16, &n));
    assert_false(cli_parse_number("", 0, 16, &n));
    assert_false(cli_parse_number("-1", 0, UINT64_MAX, &n));
}

static const struct cli_option options[] = {
    {'i', "interactive", NULL, "x"},
    {'e', "env", "X", "x"},
    {300, "timing", NULL, "x"},
    {301, "timeout", "S", "x"},
    {0},
};
static const struct cli_command command = {.name = "test", .options = options};

/* Parses the words and writes what was found as "i e=V 300 | operands". */
static const char *parse(char **words)
{
    static char text[256];
    int argc = 0, id;
    while (words[argc])
        argc++;
    size_t n = 0;
    text[0] = usage_message[0] = '\0';
    optind = 0;
    while ((id = cli_next_option(&command, argc, words)) > 0) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, id < 256 ? "%c" : "%d", id);
        n += (size_t)snprintf(text + n, sizeof(text) - n, optarg ? "=%s " : " ", optarg);
    }
    if (id < 0)
        return "error";
    n += (size_t)snprintf(text + n, sizeof(text) - n, "|");
    for (int i = optind; i < argc; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, " %s", words[i]);
    return text;
}

#define PARSE(...) parse((char *[]){(char[]){"test"}, __VA_ARGS__, NULL})
#define W(text)    ((char[]){text})

static void test_parsing(void **state)
{
    assert_string_equal(
        PARSE(W("-ie"), W("A=1"), W("image"), W("-i"), W("--env")), "i e=A=1 | image -i --env");
    assert_string_equal(PARSE(W("--env=B"), W("--timing"), W("--"), W("-x")), "e=B 300 | -x");
    assert_string_equal(PARSE(W("--timeout"), W("5"), W("x")), "301=5 | x");
    assert_string_equal(PARSE(W("--timeo"), W("5"), W("x")), "error"); /* no abbreviations */
    assert_non_null(strstr(usage_message, "unknown option '--timeo'"));
    assert_string_equal(PARSE(W("--timeo=5"), W("x")), "error");
    assert_string_equal(PARSE(W("--nothing")), "error");
    assert_non_null(strstr(usage_message, "'--nothing'"));
    assert_string_equal(PARSE(W("-iz")), "error");
    assert_non_null(strstr(usage_message, "'-z'"));
    assert_string_equal(PARSE(W("-i"), W("--tim"), W("image")), "error"); /* ambiguous */
    assert_string_equal(PARSE(W("--interactive=yes")), "error");
    assert_non_null(strstr(usage_message, "takes no value"));
    assert_string_equal(PARSE(W("-e")), "error");
    assert_non_null(strstr(usage_message, "needs a value"));
}

static void test_env_file(void **state)
{
    char path[] = "/tmp/sm-test-env-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    static const char text[] =
        "# comment\n\nA=1\nB=two words \nSM_TEST_FROM_HOST\nSM_TEST_UNSET\nC=\r\n";
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    setenv("SM_TEST_FROM_HOST", "host", 1);
    unsetenv("SM_TEST_UNSET");
    struct sm_strv env = {0};
    assert_int_equal(cli_env_add_file(&env, path), CLI_EXIT_OK);
    assert_int_equal(env.count, 4);
    assert_string_equal(env.items[0], "A=1");
    assert_string_equal(env.items[1], "B=two words ");
    assert_string_equal(env.items[2], "SM_TEST_FROM_HOST=host");
    assert_string_equal(env.items[3], "C=");
    assert_null(env.items[4]);
    assert_int_equal(write(fd, "=x\n", 3), 3);
    assert_int_equal(cli_env_add_file(&env, path), CLI_EXIT_FAILURE);
    sm_strv_clear(&env);
    close(fd);
    unlink(path);
    assert_int_equal(cli_env_add_file(&env, path), CLI_EXIT_FAILURE);
}

static int env_file_of(const char *text, size_t size, struct sm_strv *env)
{
    char path[] = "/tmp/sm-test-env-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, size), size);
    close(fd);
    int status = cli_env_add_file(env, path);
    unlink(path);
    return status;
}

/* What docker makes of the same files. */
static void test_env_file_as_docker(void **state)
{
    static const struct {
        const char *text;
        const char *first; /* NULL: refused */
    } files[] = {
        {"\xef\xbb\xbf"
         "BOM=1\n",
            "BOM=1"},
        {"\xef\xbb\xbf# comment\nX=1\n", "X=1"},
        {"  LEFT=1 \n", "LEFT=1 "},
        {"A= x=y", "A= x=y"},
        {"\xc3\xa4=\xc3\xb6\n", "\xc3\xa4=\xc3\xb6"},
        {"export I=5\n", NULL},
        {"J =x\n", NULL},
        {"K\t=x\n", NULL},
        {"TWO WORDS\n", NULL},
        {"=x\n", NULL},
        {"X=1\n\xef\xbb\xbfY=2\n", "X=1"}, /* no mark: a name that docker takes, too */
        {"L=\xe4\n", NULL},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(files); i++) {
        struct sm_strv env = {0};
        int status = env_file_of(files[i].text, strlen(files[i].text), &env);
        assert_int_equal(status, files[i].first ? CLI_EXIT_OK : CLI_EXIT_FAILURE);
        if (files[i].first)
            assert_string_equal(env.items[0], files[i].first);
        sm_strv_clear(&env);
    }
    struct sm_strv env = {0};
    assert_int_equal(env_file_of("N=a\0b\n", 6, &env), CLI_EXIT_FAILURE);
    assert_int_equal(env_file_of("\0hidden\n", 8, &env), CLI_EXIT_FAILURE);
    sm_strv_clear(&env);
}

static void a_setting_goes_where_its_row_says(void **state)
{
    struct into {
        const char *text;
        bool flag;
        int ms;
    } into = {0};
    static const struct cli_setting table[] = {
        {CLI_SETS_TEXT(0x100, struct into, text)},
        {CLI_SETS_FLAG('f', struct into, flag)},
        {CLI_SETS_TIME(0x101, struct into, ms)},
        {0},
    };
    static const struct cli_option rows[] = {
        {0x100, "text", "TEXT", ""}, {'f', "flag", NULL, ""}, {0x101, "time", "TIME", ""}, {0}};
    static const struct cli_command with_rows = {.name = "c", .options = rows};
    char words[] = "words", time[] = "1.5m", soon[] = "soon";
    int status = -1;
    optarg = words;
    assert_true(cli_take_setting(&with_rows, table, 0x100, &into, &status));
    assert_true(cli_take_setting(&with_rows, table, 'f', &into, &status));
    optarg = time;
    assert_true(cli_take_setting(&with_rows, table, 0x101, &into, &status));
    assert_int_equal(status, CLI_EXIT_OK);
    assert_string_equal(into.text, "words");
    assert_true(into.flag);
    assert_int_equal(into.ms, 90000);

    assert_false(cli_take_setting(&with_rows, table, 'x', &into, &status));
    assert_int_equal(status, CLI_EXIT_OK);
    optarg = soon;
    assert_true(cli_take_setting(&with_rows, table, 0x101, &into, &status));
    assert_int_equal(status, CLI_EXIT_FAILURE);
    assert_string_equal(usage_message, "'--time soon' is not a time such as 10 or 1.5m");
}

static void assert_list(const struct sm_strv *list, const char *const *want)
{
    size_t n = 0;
    for (; want[n]; n++) {
        assert_true(n < list->count);
        assert_string_equal(list->items[n], want[n]);
    }
    assert_int_equal(list->count, n);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void a_list_has_each_value_or_each_word(void **state)
{
    struct into {
        struct sm_strv list, words;
    } into = {0};
    static const struct cli_setting table[] = {
        {CLI_SETS_LIST('l', struct into, list)}, {CLI_SETS_WORDS('w', struct into, words)}, {0}};
    char two[] = "a,b", empty[] = "", odd[] = ",c";
    int status;
    optarg = two;
    assert_true(cli_take_setting(NULL, table, 'l', &into, &status));
    assert_true(cli_take_setting(NULL, table, 'w', &into, &status));
    optarg = empty;
    assert_true(cli_take_setting(NULL, table, 'w', &into, &status));
    optarg = odd;
    assert_true(cli_take_setting(NULL, table, 'w', &into, &status));
    assert_list(&into.list, LIST("a,b"));
    assert_list(&into.words, LIST("a", "b", "", "", "c"));
    sm_strv_clear(&into.list);
    sm_strv_clear(&into.words);
}

/* The ids that come, as text; "!" ends those of a usage error. */
static void flags_as(const char *want, int argc, char **argv)
{
    static const struct cli_option rows[] = {
        {'f', "flag", NULL, ""}, {'m', "may", "=BOOL", ""}, {0}};
    static const struct cli_option more[] = {{'x', "extra", "X", NULL}, {0}};
    static const struct cli_command flags = {.name = "c", .options = rows, .also = more};
    char got[64] = "";
    int id;
    optind = 0;
    while ((id = cli_next_option(&flags, argc, argv)) > 0)
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%c%s%s", id,
            optarg && id != 'f' ? "=" : "", optarg && id != 'f' ? optarg : "");
    if (id == CLI_OPTIONS_ERROR)
        strcat(got, "!");
    assert_string_equal(got, want);
}

#define FLAGS(want, ...)                                                                           \
    do {                                                                                           \
        char name_[] = "c";                                                                        \
        char *argv_[] = {name_, __VA_ARGS__, NULL};                                                \
        flags_as(want, (int)SM_ARRAY_LEN(argv_) - 1, argv_);                                       \
    } while (0)

static void a_flag_may_be_said_to_be_off(void **state)
{
    FLAGS("f", (char[]){"--flag"});
    FLAGS("f", (char[]){"--flag=true"});
    FLAGS("f", (char[]){"--flag=1"}, (char[]){"operand"}, (char[]){"--flag"});
    FLAGS("", (char[]){"--flag=false"});
    FLAGS("f", (char[]){"--flag=0"}, (char[]){"-f"});
    FLAGS("!", (char[]){"--flag=maybe"});
    assert_string_equal(usage_message, "option '--flag=maybe' takes no value");
    FLAGS("!", (char[]){"--flag="});
    FLAGS("mm=falsem=true!", (char[]){"--may"}, (char[]){"--may=0"}, (char[]){"--may=1"},
        (char[]){"--may=x"});
    assert_string_equal(usage_message, "option '--may=x' takes no value but true and false");
    FLAGS("x=1f", (char[]){"--extra"}, (char[]){"1"}, (char[]){"-f"});
    FLAGS("x=1", (char[]){"-x1"});
    FLAGS("!", (char[]){"--extr"}, (char[]){"1"});
    FLAGS("!", (char[]){"-x"});
}

/* The last one counts, as with podman: so an alias or a script can be overridden. */
static void a_flag_may_be_taken_back(void **state)
{
    struct into {
        bool flag, other;
    } into = {.flag = true, .other = true};
    static const struct cli_setting table[] = {
        {CLI_SETS_FLAG('f', struct into, flag)}, {CLI_SETS_FLAG('o', struct into, other)}, {0}};
    static const struct cli_option rows[] = {{'f', "flag", NULL, ""}, {0}};
    static const struct cli_command with_rows = {.name = "c", .options = rows};
    char name[] = "c", on[] = "--flag", no[] = "--flag=false";
    char *argv[] = {name, on, no, on, NULL};
    bool off;
    optind = 0;
    assert_int_equal(cli_next_flag(&with_rows, 4, argv, &off), 'f');
    assert_false(off);
    assert_int_equal(cli_next_flag(&with_rows, 4, argv, &off), 'f');
    assert_true(off);
    cli_unset(table, 'f', &into);
    assert_false(into.flag);
    assert_true(into.other);
    assert_int_equal(cli_next_flag(&with_rows, 4, argv, &off), 'f');
    assert_false(off);
}

static void an_entrypoint_is_an_array_or_a_word(void **state)
{
    const struct {
        const char *text;
        const char *const *want;
    } cases[] = {
        {"[\"echo\", \"a b\"]", (const char *const[]){"echo", "a b", NULL}},
        {" [\"echo\"]", (const char *const[]){"echo", NULL}},
        {"[]", (const char *const[]){"", NULL}},
        {"", (const char *const[]){"", NULL}},
        {"[", (const char *const[]){"[", NULL}},
        {"[1]", (const char *const[]){"[1]", NULL}},
        {"[\"a\", 1]", (const char *const[]){"[\"a\", 1]", NULL}},
        {"{\"a\":1}", (const char *const[]){"{\"a\":1}", NULL}},
        {"echo x", (const char *const[]){"echo x", NULL}},
    };
    struct sm_strv entrypoint = {0};
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        cli_take_entrypoint(&entrypoint, cases[i].text);
        assert_list(&entrypoint, cases[i].want);
    }
    sm_strv_clear(&entrypoint);
}

/* As podman 4.3.1 has them, but for a range without ports of the host, which stays one. */
static void ranges_of_ports_are_ports(void **state)
{
    const struct {
        const char *text;
        const char *const *want; /* NULL: refused */
    } cases[] = {
        {"8000-8002:9000-9002", (const char *const[]){"8000:9000", "8001:9001", "8002:9002", NULL}},
        {"80-81", (const char *const[]){"80", "81", NULL}},
        {"80", (const char *const[]){"80", NULL}},
        {":80-81/udp", (const char *const[]){":80/udp", ":81/udp", NULL}},
        {"127.0.0.1:8000-8001:90-91/udp",
            (const char *const[]){"127.0.0.1:8000:90/udp", "127.0.0.1:8001:91/udp", NULL}},
        {"127.0.0.1::80", (const char *const[]){"127.0.0.1::80", NULL}},
        {"[::1]:8000-8001:90-91", (const char *const[]){"[::1]:8000:90", "[::1]:8001:91", NULL}},
        {"1-2:1-2,7000:7000", (const char *const[]){"1:1", "2:2", "7000:7000", NULL}},
        {"8000-8010:80", NULL},
        {"8000-8002:9000-9003", NULL},
        /* what is none goes on as it is */
        {"8002-8000:1-2", (const char *const[]){"8002-8000:1-2", NULL}},
        {"99999:1", (const char *const[]){"99999:1", NULL}},
        {"80:", (const char *const[]){"80:", NULL}},
        {"", (const char *const[]){"", NULL}},
    };
    static const struct cli_command ports_of = {.name = "c"};
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_strv ports = {0};
        int status = cli_take_ports(&ports_of, "publish", cases[i].text, &ports);
        assert_int_equal(status, cases[i].want ? 0 : CLI_EXIT_FAILURE);
        if (cases[i].want)
            assert_list(&ports, cases[i].want);
        sm_strv_clear(&ports);
    }
    struct sm_strv ports = {0};
    assert_int_equal(cli_take_ports(&ports_of, "expose", "1.2.3.4:80:80", &ports), 125);
    assert_int_equal(cli_take_ports(&ports_of, "expose", "80,x", &ports), 125);
    sm_strv_clear(&ports);
}

/* Two rows with one id would judge one option by the other's words. */
static void options_of_podman_are_each_its_own(void **state)
{
    for (const struct cli_option *o = cli_podman_options; o->id; o++) {
        for (const struct cli_option *p = cli_podman_options; p != o; p++) {
            assert_int_not_equal(o->id, p->id);
            assert_string_not_equal(o->name, p->name);
        }
    }
}

static void test_format_size(void **state)
{
    char buf[32];
    assert_string_equal(cli_format_size(0, buf), "0 B");
    assert_string_equal(cli_format_size(999, buf), "999 B");
    assert_string_equal(cli_format_size(1500, buf), "1.5 KiB");
    assert_string_equal(cli_format_size(123456789, buf), "118 MiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_parsing),
        cmocka_unit_test(test_env_file),
        cmocka_unit_test(test_env_file_as_docker),
        cmocka_unit_test(a_setting_goes_where_its_row_says),
        cmocka_unit_test(a_list_has_each_value_or_each_word),
        cmocka_unit_test(a_flag_may_be_said_to_be_off),
        cmocka_unit_test(a_flag_may_be_taken_back),
        cmocka_unit_test(an_entrypoint_is_an_array_or_a_word),
        cmocka_unit_test(ranges_of_ports_are_ports),
        cmocka_unit_test(options_of_podman_are_each_its_own),
        cmocka_unit_test(test_format_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
