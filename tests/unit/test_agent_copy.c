/* What a tmpfs gets of the directory below it (guest/agent/copy.c), in a directory of the test's
 * own. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "copy.h"
#include "shell.h"

static char top[] = "/tmp/sm-test-XXXXXX";
static int from, to;

static int open_directory(const char *name)
{
    char path[64];
    snprintf(path, sizeof(path), "%s/%s", top, name);
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int setup(void **state)
{
    (void)state;
    strcpy(top + strlen(top) - 6, "XXXXXX");
    assert_non_null(mkdtemp(top));
    sh("cd %s && mkdir from to && umask 022", top);
    from = open_directory("from");
    to = open_directory("to");
    return from >= 0 && to >= 0 ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    close(from);
    close(to);
    sh("rm -rf %s", top);
    return 0;
}

/* Without the directory itself. */
static void assert_same(void)
{
    sh("cd %s && for d in from to; do (cd $d && find . -mindepth 1 -printf '%%P %%M %%U:%%G %%l ' "
       "\\( -type f -printf '%%T@ ' -exec sha256sum {} \\; -o -type d -printf '%%T@\\n' -o "
       "-printf '\\n' \\) | sort) >$d.list; done; diff from.list to.list >&2",
        top);
}

static void is_the_same_in_all(void **state)
{
    (void)state;
    sh("cd %s/from && mkdir -p a/b/c empty && echo x >a/x && echo y >a/b/y && echo z >z && chmod 4751 z && "
       "ln -s ../gone a/link && mkfifo fifo && chmod 1777 empty && truncate -s 3000000 large && "
       "touch -h -d '2001-02-03 04:05:06.7' a a/link a/x fifo && ln z hard",
        top);
    if (geteuid() == 0)
        sh("cd %s/from && chown -h 33:34 a a/link a/b/y fifo z && chmod 4751 z && mknod null c 1 3",
            top);
    assert_int_equal(copy_within(from, to, UINT64_MAX), 0);
    assert_same();
}

/* More than is read at once, with directories among it. */
static void goes_on_where_it_was(void **state)
{
    (void)state;
    sh("cd %s/from && for i in $(seq 300); do if [ $((i %% 3)) = 0 ]; then mkdir directory-of-number-$i && "
       "echo $i >directory-of-number-$i/file; else echo $i >file-of-number-$i; fi; done",
        top);
    assert_int_equal(copy_within(from, to, UINT64_MAX), 0);
    assert_same();
}

/* So many directories, one within the other. */
static void nest(unsigned depth)
{
    int dir = dup(from);
    for (unsigned i = 0; i < depth; i++) {
        assert_int_equal(mkdirat(dir, "d", 0755), 0);
        int next = openat(dir, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(dir);
        dir = next;
    }
    close(dir);
}

static void as_deep_as_an_image_may_be_and_no_deeper(void **state)
{
    (void)state;
    nest(255);
    assert_int_equal(copy_within(from, to, UINT64_MAX), 0);
    assert_same();
    sh("rm -r %s/from/d %s/to/d", top, top);
    nest(256);
    assert_int_equal(copy_within(from, to, UINT64_MAX), -1);
    assert_int_equal(errno, ELOOP);
}

static void ends_when_its_time_is_over(void **state)
{
    (void)state;
    assert_int_equal(copy_within(from, to, 0), 0); /* nothing takes no time */
    sh("cd %s/from && mkdir -p a && truncate -s 3000000 a/large", top);
    assert_int_equal(copy_within(from, to, 0), -1);
    assert_int_equal(errno, ETIMEDOUT);
    int next = dup(from); /* nothing stayed open */
    assert_int_equal(next, to + 1);
    close(next);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(is_the_same_in_all),
        T(goes_on_where_it_was),
        T(as_deep_as_an_image_may_be_and_no_deeper),
        T(ends_when_its_time_is_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
