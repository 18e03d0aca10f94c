/* The note of what a start writes: whoever wrote it, what is read back has bounds. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/bytes.h"
#include "vm/hot.h"

static char dir[] = "/tmp/sm-hot-XXXXXX", path[64];

static void put(const char *head, const uint32_t *words, size_t n)
{
    uint8_t text[8 + 8 * (SM_HOT_MAX_RUNS + 1)];
    char name[80];
    memcpy(text, head, 8);
    for (size_t i = 0; i < n; i++)
        sm_store_le32(text + 8 + 4 * i, words[i]);
    snprintf(name, sizeof(name), "%s.hot", path);
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, text, 8 + 4 * n), 8 + 4 * n);
    close(fd);
}

static void what_was_noted_is_read(void **state)
{
    static const uint32_t words[] = {7, 2, 100, 1};
    struct sm_hot hot;
    put("SMHOT001", words, 4);
    sm_hot_read(path, &hot);
    assert_int_equal(hot.n, 2);
    assert_int_equal(hot.runs[0].page, 7);
    assert_int_equal(hot.runs[0].n_pages, 2);
    assert_int_equal(hot.runs[1].page, 100);
}

static void another_file_or_none_is_no_note(void **state)
{
    static const uint32_t words[] = {7, 2};
    struct sm_hot hot;
    put("SMHOT002", words, 2);
    sm_hot_read(path, &hot);
    assert_int_equal(hot.n, 0);
    sm_hot_read("/nowhere", &hot);
    assert_int_equal(hot.n, 0);
}

static void more_than_a_start_writes_is_not_believed(void **state)
{
    static const uint32_t words[] = {0, SM_HOT_MAX_PAGES, 9999, 1};
    struct sm_hot hot;
    put("SMHOT001", words, 2);
    sm_hot_read(path, &hot);
    assert_int_equal(hot.n, 1);
    put("SMHOT001", words, 4);
    sm_hot_read(path, &hot);
    assert_int_equal(hot.n, 0);
}

static void a_longer_file_is_cut(void **state)
{
    uint32_t words[2 * (SM_HOT_MAX_RUNS + 1)];
    struct sm_hot hot;
    for (size_t i = 0; i < 2 * (SM_HOT_MAX_RUNS + 1); i++)
        words[i] = 1;
    put("SMHOT001", words, 2 * (SM_HOT_MAX_RUNS + 1));
    sm_hot_read(path, &hot);
    assert_int_equal(hot.n, SM_HOT_MAX_RUNS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_noted_is_read),
        cmocka_unit_test(another_file_or_none_is_no_note),
        cmocka_unit_test(more_than_a_start_writes_is_not_believed),
        cmocka_unit_test(a_longer_file_is_cut),
    };
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/x.snap", dir);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[80];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command) != 0 ? 1 : failed;
}
