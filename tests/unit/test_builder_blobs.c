/* Blobs of the store, and who waits for whom. */
#include "snapshot_util.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "builder/blobs.h"
#include "image/store_files.h"

static sm_error err;
static char *dir;
static struct sm_imgstore *store;

/* No time passes while somebody sleeps, who lets go of a lock after so many times; 0: he has
 * none. */
static unsigned sleeps_left;
static int lock_held = -1;

int nanosleep(const struct timespec *time, struct timespec *left)
{
    if (sleeps_left && --sleeps_left == 0)
        flock(lock_held, LOCK_UN);
    return 0;
}

static int open_store(void **state)
{
    dir = make_dir();
    assert_int_equal(sm_imgstore_open(&store, dir, &err), 0);
    return 0;
}

static int close_store(void **state)
{
    sm_imgstore_close(store);
    remove_dir(dir);
    return 0;
}

static struct sm_descriptor blob(unsigned i, uint64_t size)
{
    struct sm_descriptor d = {.size = size};
    snprintf(d.digest, sizeof(d.digest), "sha256:%064x", i);
    return d;
}

/* It has many blobs to look at, or no CPU to do it. */
static void a_prune_is_waited_for_as_long_as_it_takes(void **state)
{
    int fd = -1;
    assert_int_equal(sm_make_dirs(store->fd, "blobs/sha256"), 0);
    lock_held = openat(store->fd, "blobs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(lock_held, LOCK_EX), 0);
    sleeps_left = 100000;
    assert_int_equal(sm_store_hold_blobs(store, &fd, &err), 0);
    assert_int_equal(flock(lock_held, LOCK_EX | LOCK_NB), -1);
    close(fd);
    close(lock_held);
}

/* Who comes second gets what the first has finished, or goes on with what it has left. */
static void a_blob_has_one_writer(void **state)
{
    const struct sm_descriptor d = blob(1, 3);
    struct sm_partial first = SM_PARTIAL_NONE, second = SM_PARTIAL_NONE;
    int fd = -1;
    char text[4] = "";
    assert_int_equal(sm_make_dirs(store->fd, "blobs/sha256"), 0);
    assert_int_equal(sm_store_claim_blob(store, &d, 0, &first, &fd, &err), 0);
    assert_int_equal(fd, -1);
    assert_int_equal(sm_store_claim_blob(store, &d, 0, &second, &fd, &err), -SM_EBUSY);
    assert_int_equal(sm_write_all(first.fd, "ab", 2), 0);
    sm_partial_leave(&first);
    sm_partial_close(&first);
    assert_int_equal(sm_store_claim_blob(store, &d, 0, &second, &fd, &err), 0);
    assert_int_equal(fd, -1);
    assert_int_equal(lseek(second.fd, 0, SEEK_END), 2);
    assert_int_equal(sm_write_all(second.fd, "c", 1), 0);
    assert_int_equal(sm_partial_commit(&second, SM_PARTIAL_NO_SYNC, &err), 0);
    sm_partial_close(&second);
    assert_int_equal(sm_store_claim_blob(store, &d, 0, &first, &fd, &err), 0);
    assert_int_equal(pread(fd, text, sizeof(text), 0), 3);
    assert_string_equal(text, "abc");
    close(fd);
    sm_partial_close(&first);
    const struct sm_descriptor other = blob(1, 4); /* a damaged one is none */
    assert_int_equal(sm_store_open_blob(store, &other), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_prune_is_waited_for_as_long_as_it_takes, open_store, close_store),
        cmocka_unit_test_setup_teardown(a_blob_has_one_writer, open_store, close_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
