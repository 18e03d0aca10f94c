/* Snapshot files that others may write: what is copied of them, and of which. */
#include "snapshot_util.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/reader.h"

enum { BYTES = 3 << 20 };

static sm_error err;
static char *dir, *path, *bytes;

static int set_up(void **state)
{
    dir = make_dir();
    bytes = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (char)(i * 7 + i / 4096);
    path = make_file(dir, "file", bytes, BYTES);
    return 0;
}

static int tear_down(void **state)
{
    free(path);
    free(bytes);
    remove_dir(dir);
    return 0;
}

/* Has it owned; the descriptor. */
static int own(uint64_t most, bool *copied)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    if (sm_snapshot_own(&fd, dir, most, copied, &err) != 0)
        fail_msg("%s", err.message);
    return fd;
}

static void ours_stays_what_it_is(void **state)
{
    bool copied = true;
    struct stat st, there;
    auto_fd fd = own(4096, &copied);
    assert_false(copied);
    assert_int_equal(fstat(fd, &st) | stat(path, &there), 0);
    assert_int_equal(st.st_ino, there.st_ino);
}

static void of_what_others_may_write_no_more_than_the_snapshot_is_copied(void **state)
{
    static const uint64_t most[] = {4096, (1 << 20) + 8192, BYTES, 1ull << 40};
    assert_int_equal(chmod(path, 0666), 0);
    char *have = malloc(BYTES);
    for (size_t i = 0; i < sizeof(most) / sizeof(most[0]); i++) {
        bool copied = false;
        struct stat st;
        size_t size = most[i] < BYTES ? most[i] : BYTES;
        auto_fd fd = own(most[i], &copied);
        assert_true(copied);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_nlink, 0);
        assert_int_equal(st.st_size, size);
        assert_int_equal(pread(fd, have, size, 0), size);
        assert_memory_equal(have, bytes, size);
    }
    free(have);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ours_stays_what_it_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            of_what_others_may_write_no_more_than_the_snapshot_is_copied, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
