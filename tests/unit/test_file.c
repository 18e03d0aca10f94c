/*
 * Files that are made beside their place: what others have put there is neither followed nor
 * overwritten, what fails leaves nothing, of two writers one works. And places that are ours alone.
 */
#include "snapshot_util.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "patience.h"
#include "util/bytes.h"
#include "util/file.h"
#include "util/lock.h"

#define STRANGER 65534

static sm_error err;
static char *dir;
static int dir_fd;

/* The directories that were brought to disk, instead of which the C library's call does nothing
 * here. */
static struct stat synced[8];
static size_t n_synced;

int fsync(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    if (S_ISDIR(st.st_mode) && n_synced < SM_ARRAY_LEN(synced))
        synced[n_synced++] = st;
    return 0;
}

static int set_up(void **state)
{
    dir = make_dir();
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir_fd < 0;
}

static int tear_down(void **state)
{
    close(dir_fd);
    remove_dir(dir);
    return 0;
}

static void expect_text(const char *name, const char *text)
{
    char path[512];
    size_t len;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    uint8_t *data = slurp(path, &len);
    assert_int_equal(len, strlen(text));
    assert_memory_equal(data, text, len);
    free(data);
}

static bool has(const char *name)
{
    return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* The whole of it, as who has a file to write does it. */
static int put(const char *name, const char *text)
{
    auto_partial p = SM_PARTIAL_NONE;
    int rc = sm_partial_open(&p, dir_fd, name, NULL, &err);
    if (rc)
        return rc;
    assert_int_equal(sm_write_all(p.fd, text, strlen(text)), 0);
    return sm_partial_commit(&p, SM_PARTIAL_SYNC_ALL, &err);
}

static void a_file_appears_when_it_is_whole(void **state)
{
    struct sm_partial p;
    struct stat st;
    free(make_file(dir, "target", "old", 3));
    assert_int_equal(sm_partial_open(&p, dir_fd, "target", NULL, &err), 0);
    assert_int_equal(fstat(p.fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(sm_write_all(p.fd, "new!", 4), 0);
    expect_text("target", "old");
    assert_int_equal(sm_partial_commit(&p, SM_PARTIAL_SYNC_ALL, &err), 0);
    sm_partial_close(&p);
    expect_text("target", "new!");
    assert_false(has("target.partial"));
    assert_int_equal(sm_partial_open(&p, dir_fd, "target", NULL, &err), 0);
    sm_partial_close(&p); /* given up */
    expect_text("target", "new!");
    assert_false(has("target.partial"));
}

static void leftovers_are_made_anew_or_gone_on_with(void **state)
{
    struct sm_partial p;
    struct stat st;
    free(make_file(dir, "a.partial", "left", 4));
    int kept_open = openat(dir_fd, "a.partial", O_RDONLY | O_CLOEXEC);
    assert_int_equal(put("a", "secret"), 0);
    assert_int_equal(fstat(kept_open, &st), 0);
    assert_int_equal(st.st_size, 4); /* who had it open sees nothing of the new one */
    close(kept_open);

    const struct sm_partial_options resume = {.resume = true};
    free(make_file(dir, "b.partial", "left", 4));
    assert_int_equal(sm_partial_open(&p, dir_fd, "b", &resume, &err), 0);
    assert_int_equal(lseek(p.fd, 0, SEEK_END), 4);
    sm_partial_leave(&p);
    assert_true(has("b.partial"));
    assert_int_equal(fchmodat(dir_fd, "b.partial", 0644, 0), 0); /* others may have it open */
    assert_int_equal(sm_partial_open(&p, dir_fd, "b", &resume, &err), 0);
    assert_int_equal(lseek(p.fd, 0, SEEK_END), 0);
    sm_partial_close(&p);
    assert_false(has("b.partial"));
}

static void of_two_writers_one_works(void **state)
{
    struct sm_partial first, second;
    assert_int_equal(sm_partial_open(&first, dir_fd, "x", NULL, &err), 0);
    assert_int_equal(sm_partial_open(&second, dir_fd, "x", NULL, &err), -SM_EBUSY);
    assert_int_equal(second.fd, -1);
    assert_int_equal(
        sm_partial_open(&second, dir_fd, "x", &(struct sm_partial_options){.wait_ms = 30}, &err),
        -SM_EBUSY);
    pid_t child = fork();
    if (child == 0) {
        sm_close(first.fd); /* the lock is our parent's alone */
        struct sm_partial p;
        int rc = sm_partial_open(
            &p, dir_fd, "x", &(struct sm_partial_options){.wait_ms = PATIENCE_MS}, &err);
        if (rc || sm_write_all(p.fd, "child", 5) || sm_partial_commit(&p, SM_PARTIAL_NO_SYNC, &err))
            _exit(1);
        _exit(0);
    }
    usleep(20000);
    assert_int_equal(sm_write_all(first.fd, "parent", 6), 0);
    assert_int_equal(sm_partial_commit(&first, SM_PARTIAL_NO_SYNC, &err), 0);
    sm_partial_close(&first);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    expect_text("x", "child");
    assert_false(has("x.partial"));
}

/* Another user has been there before us. */
static void what_others_planted_is_left_alone(void **state)
{
    if (geteuid() != 0)
        skip();
    static const char *const names[] = {"file", "link", "hard", "fifo", "directory"};
    char *secret = make_file(dir, "secret", "ours", 4);
    assert_int_equal(fchmod(dir_fd, 0777), 0);
    pid_t child = fork();
    if (child == 0) {
        if (setgroups(0, NULL) || setgid(STRANGER) || setuid(STRANGER))
            _exit(77);
        umask(0);
        int fd = openat(dir_fd, "file.partial", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        int bad = fd < 0 || symlinkat("secret", dir_fd, "link.partial") ||
                  mkfifoat(dir_fd, "fifo.partial", 0666) ||
                  mkdirat(dir_fd, "directory.partial", 0777);
        _exit(bad);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(linkat(dir_fd, "secret", dir_fd, "hard.partial", 0), 0);
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++) {
        char partial[64];
        snprintf(partial, sizeof(partial), "%s.partial", names[i]);
        assert_int_equal(put(names[i], "new"), -SM_EEXIST);
        assert_non_null(strstr(err.message, partial));
        assert_non_null(strstr(err.message, "remove it"));
        assert_false(has(names[i]));
        assert_true(has(partial));
    }
    expect_text("secret", "ours");
    expect_text("file.partial", "");
    /* a lock of theirs holds nobody up */
    int theirs = openat(dir_fd, "file.partial", O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(theirs, LOCK_EX), 0);
    assert_int_equal(put("file", "new"), -SM_EEXIST);
    close(theirs);
    free(secret);
}

/* In a child that is no superuser, to whom modes mean nothing; its status. */
static int as_a_user(int (*fn)(void))
{
    assert_int_equal(fchmod(dir_fd, 0777), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(geteuid() == 0 && (setgroups(0, NULL) || setgid(STRANGER) || setuid(STRANGER))
                  ? 77
                  : fn());
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Its writer has made it read-only, and holds its lock. */
static int meet_a_finished_one(void)
{
    struct sm_partial first;
    if (sm_partial_open(&first, dir_fd, "x", NULL, &err) || fchmod(first.fd, 0400))
        return 1;
    if (put("x", "second") != -SM_EBUSY)
        return 2;
    sm_partial_leave(&first); /* killed */
    return put("x", "second") || !has("x") || has("x.partial") ? 3 : 0;
}

static void one_that_is_read_only_is_waited_for_and_replaced(void **state)
{
    assert_int_equal(as_a_user(meet_a_finished_one), 0);
    expect_text("x", "second");
}

/* The interval is an hour: it is the deadline that ends the sleep. */
static void a_lock_is_tried_until_the_deadline(void **state)
{
    enum { HOUR_MS = 3600 * 1000 };
    auto_fd one = openat(dir_fd, "x", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    auto_fd other = openat(dir_fd, "x", O_RDWR | O_CLOEXEC);
    assert_int_equal(sm_lock_try(one, LOCK_SH), 0);
    assert_int_equal(sm_lock_try(other, LOCK_SH), 0);
    assert_int_equal(sm_lock_try(other, LOCK_EX), SM_LOCK_TAKEN);
    assert_int_equal(sm_lock_try(-1, LOCK_EX), -1);
    assert_false(sm_lock_again(sm_deadline(0), HOUR_MS));
    assert_true(sm_lock_again(SM_NO_DEADLINE, 1));
    int64_t deadline = sm_deadline(20);
    unsigned tries = 0;
    do
        tries++;
    while (sm_lock_try(other, LOCK_EX) == SM_LOCK_TAKEN && sm_lock_again(deadline, HOUR_MS));
    assert_int_equal(sm_deadline_left(deadline), 0);
    assert_in_range(tries, 1, 2); /* one on a machine that had no time for us until it was over */
}

/* A lease makes an open that does not wait fail: nobody has to remove anything for that. */
static void what_cannot_be_opened_is_not_always_in_the_way(void **state)
{
    free(make_file(dir, "x.partial", "left", 4));
    signal(SIGIO, SIG_IGN);
    auto_fd leased = openat(dir_fd, "x.partial", O_RDWR | O_CLOEXEC);
    assert_int_equal(fcntl(leased, F_SETLEASE, F_WRLCK), 0);
    int rc = put("x", "new");
    signal(SIGIO, SIG_DFL);
    assert_int_not_equal(rc, 0);
    assert_int_not_equal(rc, -SM_EEXIST);
    assert_non_null(strstr(err.message, "cannot open x.partial"));
}

static void what_was_put_in_its_place_gets_no_name(void **state)
{
    struct sm_partial p;
    assert_int_equal(sm_partial_open(&p, dir_fd, "x", NULL, &err), 0);
    assert_int_equal(unlinkat(dir_fd, "x.partial", 0), 0);
    free(make_file(dir, "x.partial", "theirs", 6));
    assert_int_equal(sm_partial_commit(&p, SM_PARTIAL_SYNC_FILE, &err), -SM_EBUSY);
    sm_partial_close(&p);
    assert_false(has("x"));
    expect_text("x.partial", "theirs");
}

static int full(int fd)
{
    errno = ENOSPC;
    return -1;
}

static int refused(int from_dir, const char *from, int to_dir, const char *to)
{
    errno = EDQUOT;
    return -1;
}

static void a_full_disk_leaves_nothing(void **state)
{
    static const struct sm_partial_calls calls[] = {{.sync = full}, {.rename = refused}};
    for (size_t i = 0; i < SM_ARRAY_LEN(calls); i++) {
        struct sm_partial p;
        assert_int_equal(
            sm_partial_open(&p, dir_fd, "x", &(struct sm_partial_options){.calls = calls[i]}, &err),
            0);
        assert_int_equal(sm_partial_commit(&p, SM_PARTIAL_SYNC_FILE, &err), -SM_ENOSPC);
        sm_partial_close(&p);
        assert_false(has("x") || has("x.partial"));
    }
}

static void a_private_place_is_its_owners(void **state)
{
    char path[512];
    struct stat st;
    int fd = -1;
    snprintf(path, sizeof(path), "%s/a/b//c", dir);
    assert_int_equal(sm_open_private_dir(path, "place", &fd, &err), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(fchmod(fd, 0755), 0);
    close(fd);
    assert_int_equal(sm_open_private_dir(path, "place", &fd, &err), 0);
    assert_int_equal(fchmod(fd, 0770), 0);
    close(fd);
    fd = -1;
    assert_int_equal(sm_open_private_dir(path, "place", &fd, &err), -SM_EPERM);
    assert_non_null(strstr(err.message, "others may write into the place"));
    assert_int_equal(chmod(path, 0700), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(path, STRANGER, STRANGER), 0);
        assert_int_equal(sm_open_private_dir(path, "place", &fd, &err), -SM_EPERM);
        assert_non_null(strstr(err.message, "belongs to another user"));
    }
    assert_int_equal(fd, -1);
    free(make_file(dir, "file", "", 0));
    snprintf(path, sizeof(path), "%s/file", dir);
    assert_int_not_equal(sm_open_private_dir(path, "place", &fd, &err), 0);
    snprintf(path, sizeof(path), "%s/file/below", dir);
    assert_int_not_equal(sm_open_private_dir(path, "place", &fd, &err), 0);
}

static void expect_synced(size_t i, const char *name)
{
    struct stat st;
    assert_int_equal(fstatat(dir_fd, name, &st, 0), 0);
    assert_int_equal(synced[i].st_ino, st.st_ino);
}

/* Or what is in it is gone with it, however well that was brought to disk. */
static void a_directory_that_is_made_is_on_disk(void **state)
{
    char path[512];
    int fd;
    n_synced = 0;
    assert_int_equal(sm_make_dirs(dir_fd, "a/b"), 0);
    assert_int_equal(n_synced, 2);
    expect_synced(0, ".");
    expect_synced(1, "a");
    assert_int_equal(sm_make_dirs(dir_fd, "a/b"), 0); /* it is there */
    assert_int_equal(n_synced, 2);
    snprintf(path, sizeof(path), "%s/a/c", dir);
    assert_int_equal(sm_open_private_dir(path, "place", &fd, &err), 0);
    assert_int_equal(n_synced, 3);
    expect_synced(2, "a");
    close(fd);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static void bytes_are_read_and_written_where_they_belong(void **state)
{
    char buf[16] = "";
    auto_fd fd = openat(dir_fd, "bytes", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(sm_write_at(fd, "world", 5, 6), 0);
    assert_int_equal(sm_write_at(fd, "hello ", 6, 0), 0);
    assert_int_equal(sm_write_at(fd, "", 0, 100), 0);
    assert_int_equal(sm_read_at(fd, buf, 11, 0), 11);
    assert_string_equal(buf, "hello world");
    assert_int_equal(sm_read_at(fd, buf, sizeof(buf), 6), 5); /* the file ends */
    assert_memory_equal(buf, "world", 5);
    assert_int_equal(sm_read_at(fd, buf, sizeof(buf), 11), 0);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 0); /* where it stands is not touched */
    assert_int_equal(sm_read_at(dir_fd, buf, 1, 0), -1);
    assert_int_equal(errno, EISDIR);
    assert_int_equal(sm_write_at(dir_fd, "x", 1, 0), -1);
    assert_int_equal(errno, EBADF);
}

static void only_regular_files_of_some_length_are_read(void **state)
{
    char *data = NULL;
    size_t size;
    free(make_file(dir, "three", "abc", 3));
    assert_int_equal(mkfifoat(dir_fd, "fifo", 0600), 0);
    assert_int_equal(sm_read_file_at(dir_fd, "three", 3, &data, &size, &err), 0);
    assert_int_equal(size, 3);
    assert_string_equal(data, "abc");
    free(data);
    assert_int_equal(sm_read_file_at(dir_fd, "three", 2, &data, &size, &err), -SM_ELIMIT);
    assert_int_equal(sm_read_file_at(dir_fd, "none", 2, &data, &size, &err), -SM_ENOTFOUND);
    assert_int_equal(sm_read_file_at(dir_fd, "fifo", 2, &data, &size, &err), -SM_EINVAL);
}

static void only_directories_are_listed(void **state)
{
    free(make_file(dir, "file", "", 0));
    assert_int_equal(mkdirat(dir_fd, "a", 0700), 0);
    assert_int_equal(symlinkat("a", dir_fd, "link"), 0);
    int next = dup(dir_fd);
    close(next);
    assert_null(sm_open_dir(dir_fd, "file", 0));
    assert_int_equal(errno, ENOTDIR);
    assert_null(sm_open_dir(dir_fd, "none", 0));
    assert_int_equal(errno, ENOENT);
    assert_null(sm_open_dir(dir_fd, "link", O_NOFOLLOW));
    auto_dir list = sm_open_dir(dir_fd, "link", 0);
    assert_non_null(list);
    assert_int_equal(dirfd(list), next); /* what failed has kept no descriptor */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_appears_when_it_is_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(leftovers_are_made_anew_or_gone_on_with, set_up, tear_down),
        cmocka_unit_test_setup_teardown(of_two_writers_one_works, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_lock_is_tried_until_the_deadline, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_others_planted_is_left_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            one_that_is_read_only_is_waited_for_and_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            what_cannot_be_opened_is_not_always_in_the_way, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_put_in_its_place_gets_no_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_disk_leaves_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_private_place_is_its_owners, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_directory_that_is_made_is_on_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            bytes_are_read_and_written_where_they_belong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            only_regular_files_of_some_length_are_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_directories_are_listed, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
