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

static void what_is_handed_on_can_be_read_only(void **state)
{
    uid_t uid;
    int lock;
    (void)state;
    sm_machine_user_take_of(path, &uid, &lock);
    assert_int_equal(fcntl(lock, F_GETFL) & O_ACCMODE, O_RDONLY);
    assert_int_equal(write(lock, "x", 1), -1);
    close(lock);
}

static void numbers_that_are_not_there_are_not_taken(void **state)
{
    static const struct {
        const char *map;
        bool mapped;
    } cases[] = {
        {"         0          0 4294967295\n", true},
        {"         0       1000          1\n", false},
        {"         0       1000          1\n         1     100000      65536\n", false},
        {"1900000000 1900000000 65535\n", false},
        {"0 0 10\n1900000000 5 65536\n", true},
        {"", false},
    };
    char map[80];
    (void)state;
    snprintf(map, sizeof(map), "%s/map", dir);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        FILE *file = fopen(map, "w");
        fputs(cases[i].map, file);
        fclose(file);
        assert_int_equal(sm_machine_users_are_mapped(map), cases[i].mapped);
    }
    unlink(map);
    assert_false(sm_machine_users_are_mapped(map));
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
        cmocka_unit_test(what_is_handed_on_can_be_read_only),
        cmocka_unit_test(numbers_that_are_not_there_are_not_taken),
        cmocka_unit_test(a_file_of_anybody_s_gives_none),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
