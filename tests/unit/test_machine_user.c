/* Users of machines: each has one of its own as long as somebody holds it (vm/machine_user.h). */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vm/machine_user.h"

static char dir[] = "/tmp/machine-user-XXXXXX", path[64];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof(path), "%s/users", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static void each_has_a_number_of_its_own(void **state)
{
    enum { N = 50 };
    uid_t uid[N];
    int lock[N];
    (void)state;
    for (int i = 0; i < N; i++) {
        sm_machine_user_take_of(path, &uid[i], &lock[i]);
        assert_in_range(
            uid[i], SM_MACHINE_USER_FIRST, SM_MACHINE_USER_FIRST + SM_MACHINE_USERS - 1);
        for (int j = 0; j < i; j++)
            assert_int_not_equal(uid[i], uid[j]);
    }
    for (int i = 0; i < N; i++)
        close(lock[i]);
}

static bool is_taken(uid_t uid)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct flock byte = {.l_type = F_WRLCK,
        .l_whence = SEEK_SET,
        .l_start = (off_t)(uid - SM_MACHINE_USER_FIRST),
        .l_len = 1};
    assert_int_equal(fcntl(fd, F_OFD_GETLK, &byte), 0);
    close(fd);
    return byte.l_type != F_UNLCK;
}

static void it_is_taken_until_the_last_descriptor_is_closed(void **state)
{
    uid_t uid;
    int lock;
    (void)state;
    sm_machine_user_take_of(path, &uid, &lock);
    int other = dup(lock); /* the machine's process */
    close(lock);
    assert_true(is_taken(uid));
    close(other);
    assert_false(is_taken(uid));
}

static void a_file_of_anybody_s_gives_none(void **state)
{
    uid_t uid;
    int lock;
    (void)state;
    assert_int_equal(chmod(path, 0666), 0);
    sm_machine_user_take_of(path, &uid, &lock);
    assert_int_equal(uid, 0);
    assert_int_equal(lock, -1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/dev/null", path), 0);
    sm_machine_user_take_of(path, &uid, &lock);
    assert_int_equal(uid, 0);
    sm_machine_user_take_of("/nowhere/users", &uid, &lock);
    assert_int_equal(uid, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_has_a_number_of_its_own),
        cmocka_unit_test(it_is_taken_until_the_last_descriptor_is_closed),
        cmocka_unit_test(a_file_of_anybody_s_gives_none),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
