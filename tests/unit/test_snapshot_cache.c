/* The snapshot cache: keys, locks between processes, pruning. */
#include "snapshot_util.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "patience.h"
#include "snapshot/cache.h"
#include "util/bytes.h"

static sm_error err;
static char *dir;
static struct sm_snapshot_cache *cache;

static void put(const char *key, size_t bytes, time_t used)
{
    char *path = NULL, *zeros = calloc(1, bytes);
    assert_int_equal(sm_snapshot_cache_path(cache, key, &path, &err), 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, zeros, bytes), bytes);
    struct timespec times[2] = {{.tv_sec = used}, {.tv_sec = used}};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
    free(path);
    free(zeros);
}

static bool has(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void bad_keys_are_refused(void **state)
{
    (void)state;
    char long_key[130];
    memset(long_key, 'a', 129);
    long_key[129] = '\0';
    const char *bad[] = {"", ".", "..", ".a", "a/b", "../a", "a b", "a\n", "\xc3\xa9", long_key};
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        char *path = NULL;
        struct sm_snapshot_lock *lock = NULL;
        assert_int_equal(sm_snapshot_cache_path(cache, bad[i], &path, &err), -SM_EINVAL);
        assert_int_equal(sm_snapshot_cache_find(cache, bad[i], &path, &err), -SM_EINVAL);
        assert_int_equal(sm_snapshot_cache_remove(cache, bad[i], &err), -SM_EINVAL);
        assert_int_equal(sm_snapshot_cache_lock(cache, bad[i], 0, &lock, &err), -SM_EINVAL);
        assert_null(path);
        assert_null(lock);
    }
    long_key[128] = '\0';
    put(long_key, 10, 100);
    assert_int_equal(sm_snapshot_cache_remove(cache, long_key, &err), 0);
}

static void finding_marks_as_used(void **state)
{
    (void)state;
    char *path = NULL;
    assert_int_equal(sm_snapshot_cache_find(cache, "one", &path, &err), -SM_ENOTFOUND);
    put("one", 10, 1000);
    put("two", 10, 2000);
    struct sm_snapshot_entry *e;
    size_t n;
    assert_int_equal(sm_snapshot_cache_list(cache, &e, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_string_equal(e[0].key, "two");
    assert_int_equal(e[0].bytes, 10);
    assert_int_equal(e[0].used.tv_sec, 2000);
    sm_snapshot_entries_free(e, n);
    assert_int_equal(sm_snapshot_cache_find(cache, "one", &path, &err), 0);
    assert_int_equal(access(path, R_OK), 0);
    free(path);
    assert_int_equal(sm_snapshot_cache_list(cache, &e, &n, &err), 0);
    assert_string_equal(e[0].key, "one");
    assert_int_equal(e[0].made.tv_sec, 1000); /* it is not younger for that */
    sm_snapshot_entries_free(e, n);
    free(make_file(dir, "one.snap.hot", "x", 1)); /* goes with its snapshot, and is none itself */
    assert_int_equal(sm_snapshot_cache_remove(cache, "one", &err), 0);
    assert_false(has("one.snap.hot"));
    assert_int_equal(sm_snapshot_cache_remove(cache, "one", &err), -SM_ENOTFOUND);
    assert_int_equal(sm_snapshot_cache_remove(cache, "two", &err), 0);
}

/* Eight processes want the same snapshot: one makes it. */
static void of_many_bakers_one_works(void **state)
{
    (void)state;
    char log[512];
    snprintf(log, sizeof(log), "%s/log", dir);
    pid_t child[8];
    for (size_t i = 0; i < SM_ARRAY_LEN(child); i++) {
        child[i] = fork();
        assert_true(child[i] >= 0);
        if (child[i])
            continue;
        struct sm_snapshot_lock *lock = NULL;
        char *path = NULL;
        if (sm_snapshot_cache_lock(cache, "shared", -1, &lock, NULL))
            _exit(1);
        if (sm_snapshot_cache_find(cache, "shared", &path, NULL) == -SM_ENOTFOUND) {
            usleep(50000);
            put("shared", 10, 1);
            int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
            if (write(fd, "x", 1) != 1)
                _exit(1);
        }
        _exit(0); /* the lock goes with us */
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(child); i++) {
        int status;
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    struct stat st;
    assert_int_equal(stat(log, &st), 0);
    assert_int_equal(st.st_size, 1);
    unlink(log);
    assert_int_equal(sm_snapshot_cache_remove(cache, "shared", &err), 0);
}

static void a_killed_baker_does_not_hold_its_lock(void **state)
{
    (void)state;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sm_snapshot_lock *lock = NULL;
        if (sm_snapshot_cache_lock(cache, "dying", 0, &lock, NULL) || write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
    }
    char x;
    assert_int_equal(read(ready[0], &x, 1), 1);
    struct sm_snapshot_lock *lock = NULL;
    assert_int_equal(sm_snapshot_cache_lock(cache, "dying", 60, &lock, &err), -SM_EBUSY);
    assert_null(lock);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(sm_snapshot_cache_lock(cache, "dying", PATIENCE_MS, &lock, &err), 0);
    sm_snapshot_cache_unlock(lock);
    close(ready[0]), close(ready[1]);
}

static void pruning_keeps_what_was_used_last(void **state)
{
    (void)state;
    time_t now = time(NULL);
    put("old", 65536, now - 1000);
    put("older", 65536, now - 2000);
    free(make_file(dir, "older.snap.hot", "x", 1));
    put("new", 65536, now - 10);
    put("busy", 65536, now - 3000);
    struct sm_snapshot_lock *lock = NULL;
    assert_int_equal(sm_snapshot_cache_lock(cache, "busy", 0, &lock, &err), 0);
    free(make_file(dir, "crashed.snap.partial", "x", 1));
    free(make_file(dir, "crashed.snap.hot.partial", "x", 1));
    free(make_file(dir, "gone.snap.hot", "x", 1));
    free(make_file(dir, "busy.snap.partial", "x", 1));
    free(make_file(dir, "stranger", "x", 1));
    free(make_file(dir, "idle.lock", "", 0));
    size_t removed = 0;
    uint64_t freed = 0;
    assert_int_equal(
        sm_snapshot_cache_prune(cache, UINT64_MAX, UINT64_MAX, &removed, &freed, &err), 0);
    assert_int_equal(removed, 0);
    assert_false(has("crashed.snap.partial"));
    assert_false(has("crashed.snap.hot.partial") || has("gone.snap.hot"));
    assert_true(has("older.snap.hot"));
    assert_false(has("idle.lock"));
    assert_true(has("busy.snap.partial") && has("busy.lock") && has("stranger"));

    assert_int_equal(sm_snapshot_cache_prune(cache, UINT64_MAX, 1500, &removed, &freed, &err), 0);
    assert_int_equal(removed, 1);
    assert_true(freed >= 65536);
    assert_false(has("older.snap") || has("older.snap.hot"));
    assert_true(has("busy.snap")); /* the oldest, but somebody works on it */

    assert_int_equal(sm_snapshot_cache_prune(cache, 100000, UINT64_MAX, &removed, &freed, &err), 0);
    assert_true(has("new.snap"));
    assert_false(has("old.snap"));
    sm_snapshot_cache_unlock(lock);
    assert_int_equal(sm_snapshot_cache_prune(cache, 0, UINT64_MAX, &removed, &freed, &err), 0);
    assert_int_equal(removed, 2);
    struct sm_snapshot_entry *e;
    size_t n;
    assert_int_equal(sm_snapshot_cache_list(cache, &e, &n, &err), 0);
    assert_int_equal(n, 0);
    sm_snapshot_entries_free(e, n);
    assert_false(has("busy.snap.partial"));
    assert_true(has("stranger"));
}

static void a_lock_file_goes_with_its_lock(void **state)
{
    (void)state;
    struct sm_snapshot_lock *lock = NULL, *second = NULL;
    assert_int_equal(sm_snapshot_cache_lock(cache, "once", 0, &lock, &err), 0);
    assert_true(has("once.lock"));
    assert_int_equal(sm_snapshot_cache_lock(cache, "once", 30, &second, &err), -SM_EBUSY);
    sm_snapshot_cache_unlock(lock);
    assert_false(has("once.lock"));
    assert_int_equal(sm_snapshot_cache_lock(cache, "once", 0, &second, &err), 0);
    sm_snapshot_cache_unlock(second);
}

static void empty_files_are_no_snapshots(void **state)
{
    (void)state;
    time_t now = time(NULL);
    size_t removed = 0;
    put("empty", 0, now);
    put("good", 65536, now);
    assert_int_equal(
        sm_snapshot_cache_prune(cache, UINT64_MAX, UINT64_MAX, &removed, NULL, &err), 0);
    assert_int_equal(removed, 1);
    assert_false(has("empty.snap"));
    assert_int_equal(sm_snapshot_cache_prune(cache, 0, UINT64_MAX, &removed, NULL, &err), 0);
    assert_int_equal(removed, 1);
    assert_false(has("good.snap"));
}

/* A directory that is called like a snapshot's lock can be neither unlinked nor locked. */
static void what_cannot_be_removed_is_told_and_not_counted(void **state)
{
    (void)state;
    char path[512];
    size_t removed = 99;
    uint64_t freed = 99;
    time_t now = time(NULL);
    put("stuck", 65536, now - 100);
    put("loose", 65536, now - 200);
    snprintf(path, sizeof(path), "%s/stuck.lock", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_not_equal(sm_snapshot_cache_prune(cache, 0, UINT64_MAX, &removed, &freed, &err), 0);
    assert_non_null(strstr(err.message, "stuck.lock"));
    assert_true(has("stuck.snap"));
    assert_false(has("loose.snap")); /* the others went, and that is told, too */
    assert_int_equal(removed, 1);
    assert_true(freed >= 65536 && freed < 2 * 65536);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(sm_snapshot_cache_prune(cache, 0, UINT64_MAX, &removed, &freed, &err), 0);
    assert_int_equal(removed, 1);
}

static void the_directory_is_made_for_its_owner(void **state)
{
    (void)state;
    struct stat st;
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    char path[512];
    snprintf(path, sizeof(path), "%s/stranger/inside", dir);
    struct sm_snapshot_cache *none = NULL;
    assert_int_not_equal(sm_snapshot_cache_open(path, &none, &err), 0);
    assert_null(none);
}

static int set_up(void **state)
{
    (void)state;
    char *top = make_dir();
    assert_true(asprintf(&dir, "%s/a/b", top) > 0);
    *state = top;
    return sm_snapshot_cache_open(dir, &cache, &err);
}

static int tear_down(void **state)
{
    sm_snapshot_cache_close(cache);
    free(dir);
    remove_dir(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_keys_are_refused),
        cmocka_unit_test(finding_marks_as_used),
        cmocka_unit_test(of_many_bakers_one_works),
        cmocka_unit_test(a_killed_baker_does_not_hold_its_lock),
        cmocka_unit_test(pruning_keeps_what_was_used_last),
        cmocka_unit_test(a_lock_file_goes_with_its_lock),
        cmocka_unit_test(empty_files_are_no_snapshots),
        cmocka_unit_test(what_cannot_be_removed_is_told_and_not_counted),
        cmocka_unit_test(the_directory_is_made_for_its_owner),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
