/* Each test is a copy of this program in a tree of its own, which looks for a file. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/locate.h"
#include "util/paths.h"

/* The copy: prints where NAME is. "gone": its own file is removed first. */
static int look(const char *name, const char *how)
{
    char *path;
    sm_error err;
    char exe[4096] = "";
    if (strcmp(how, "gone") == 0 &&
        (readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0 || unlink(exe) < 0))
        return 2;
    if (sm_locate(name, "SM_TEST_NO_SUCH_VARIABLE", "guest", &path, &err)) {
        printf("%s", err.message);
        return 1;
    }
    printf("%s", path);
    free(path);
    return 0;
}

static char root[] = "/tmp/sm-locate-XXXXXX";

/* Runs the shell's words in the tree, where $EXE is this program and $LIB the library directory of
 * a prefix. */
static void say(const char *script, char *out, size_t size)
{
    char command[8192], exe[4096] = "";
    assert_true(readlink("/proc/self/exe", exe, sizeof(exe) - 1) > 0);
    snprintf(command, sizeof(command), "cd %s && export EXE=%s LIB=%s && %s", root, exe,
        SM_PKGLIBDIR_IN_PREFIX, script);
    FILE *f = popen(command, "re");
    assert_non_null(f);
    out[fread(out, 1, size - 1, f)] = '\0';
    pclose(f);
}

static void beside_the_program_and_in_its_prefix(void **state)
{
    (void)state;
    char out[2048];
    say("mkdir -p a/bin/guest a/$LIB && cp $EXE a/bin/x && touch a/bin/guest/k a/$LIB/k a/$LIB/l "
        "&& "
        "a/bin/x look k; echo; a/bin/x look l; echo; a/bin/x look m",
        out, sizeof(out));
    assert_non_null(strstr(out, "/a/bin/guest/k\n"));
    assert_non_null(strstr(out, "/a/bin/../" SM_PKGLIBDIR_IN_PREFIX "/l\n"));
    assert_non_null(strstr(out, "m is neither in '"));
}

static void also_when_the_program_was_replaced(void **state)
{
    (void)state;
    char out[2048];
    say("mkdir -p b/bin/guest && cp $EXE b/bin/x && touch b/bin/guest/k && b/bin/x look k gone",
        out, sizeof(out));
    if (!strstr(out, "/b/bin/guest/k"))
        fail_msg("%s", out);
}

/* The program has the library in it, and is told that it is another one. */
static void a_name_that_it_was_started_by_is_no_place(void **state)
{
    (void)state;
    char out[2048];
    say("mkdir -p c/guest c/supermachine && cp $EXE c/x && touch c/guest/k c/supermachine/l && "
        "bash -c 'exec -a $PWD/c/x $EXE look k'; echo; "
        "bash -c 'exec -a $PWD/c/x $EXE look l'",
        out, sizeof(out));
    assert_non_null(strstr(out, "k is neither in '"));
    assert_non_null(strstr(out, "l is neither in '"));
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int drop_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "look") == 0)
        return look(argv[2], argc > 3 ? argv[3] : "");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beside_the_program_and_in_its_prefix),
        cmocka_unit_test(also_when_the_program_was_replaced),
        cmocka_unit_test(a_name_that_it_was_started_by_is_no_place),
    };
    return cmocka_run_group_tests(tests, make_root, drop_root);
}
