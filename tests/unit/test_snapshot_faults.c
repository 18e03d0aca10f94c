/*
 * What writers do when the system lets them down: full disks, refused threads, filesystems that
 * cannot clone or punch, short writes, and their own sudden death. Always: PATH holds the old
 * snapshot, the new one or nothing, and whole; what failed leaves no PATH.partial.
 */
#include "snapshot_util.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "snapshot/reader.h"
#include "snapshot/writer.h"
#include "util/bytes.h"

#define BYTES (2ull << 20)

static sm_error err;
static char *dir, *path, *partial, *base;
static uint8_t *ram, *old_ram, *mapped; /* mapped: the base, with pages changed to those of ram */
static int base_fd;
static struct sm_snapshot *meta;
static struct sm_compact *full, *delta;

/* ---- the seam ------------------------------------------------------------------------------ */

static struct {
    atomic_int left; /* calls until it fails */
    int error;
} fail_write, fail_truncate, fail_sync, fail_rename, fail_clone, fail_punch, fail_copy, fail_thread;
static size_t shortest;
static atomic_uint interrupts, threads_made, clones, punches, copies;

#define NEVER 1000000000

static void no_faults(void)
{
    atomic_store(&fail_write.left, NEVER);
    atomic_store(&fail_truncate.left, NEVER);
    atomic_store(&fail_sync.left, NEVER);
    atomic_store(&fail_rename.left, NEVER);
    atomic_store(&fail_clone.left, NEVER);
    atomic_store(&fail_punch.left, NEVER);
    atomic_store(&fail_copy.left, NEVER);
    atomic_store(&fail_thread.left, NEVER);
    shortest = 0;
    threads_made = clones = punches = copies = 0;
}

#define FAILS(f) (atomic_fetch_sub(&(f).left, 1) <= 0 ? (errno = (f).error, true) : false)

static ssize_t x_pwrite(int fd, const void *buf, size_t len, off_t at)
{
    if (shortest) {
        if (atomic_fetch_add(&interrupts, 1) % 3 == 0) {
            errno = EINTR;
            return -1;
        }
        len = SM_MIN(len, shortest);
    }
    return FAILS(fail_write) ? -1 : pwrite(fd, buf, len, at);
}

static int x_truncate(int fd, off_t bytes)
{
    return FAILS(fail_truncate) ? -1 : ftruncate(fd, bytes);
}

static int x_punch(int fd, off_t at, off_t len)
{
    punches++;
    return FAILS(fail_punch) ? -1 : sm_snapshot_io_real.punch(fd, at, len);
}

/* A clone for filesystems that have none: slow, and the same to look at. */
static int x_clone(int to, int from)
{
    if (FAILS(fail_clone))
        return -1;
    clones++;
    off_t size = lseek(from, 0, SEEK_END);
    uint64_t at = 0, end;
    if (ftruncate(to, size))
        return -1;
    for (; sm_snapshot_next_data(from, 0, (uint64_t)size, &at, &end); at = end) {
        void *buf = malloc(end - at);
        if (pread(from, buf, end - at, (off_t)at) < 0 || pwrite(to, buf, end - at, (off_t)at) < 0)
            abort();
        free(buf);
    }
    return 0;
}

static ssize_t x_copy(int from, off_t *from_at, int to, off_t *to_at, size_t len)
{
    copies++;
    return FAILS(fail_copy) ? -1 : sm_snapshot_io_real.copy(from, from_at, to, to_at, len);
}

static int x_sync(int fd)
{
    return FAILS(fail_sync) ? -1 : 0;
}

static int x_rename(int from_dir, const char *from, int to_dir, const char *to)
{
    return FAILS(fail_rename) ? -1 : renameat(from_dir, from, to_dir, to);
}

static int x_thread(struct sm_thread *thread, const char *name, sm_thread_fn *fn, void *arg,
    size_t stack, sm_error *why)
{
    if (FAILS(fail_thread))
        return -SM_ELIMIT;
    threads_made++;
    return sm_thread_start(thread, name, fn, arg, stack, why);
}

static const struct sm_snapshot_io io = {
    x_pwrite, x_truncate, x_punch, x_clone, x_copy, x_sync, x_rename, x_thread};

/* ---- the writers --------------------------------------------------------------------------- */

enum writer { PLAIN, STREAMING, COMPACT, DIFF_FULL, DIFF_DELTA, WRITERS };
static const char *const names[] = {"plain", "streaming", "compact", "diff", "delta"};

static int write_with(
    enum writer w, unsigned threads, bool real, struct sm_snapshot_write_stats *stats)
{
    struct sm_snapshot_write_options o = {
        .threads = threads, .io = real ? NULL : &io, .no_sync = false};
    struct sm_ram r = {.base = ram, .bytes = BYTES, .backing = SM_RAM_ANONYMOUS, .fd = -1};
    switch (w) {
    case PLAIN:
        return sm_snapshot_save_plain(path, meta, ram, &o, stats, &err);
    case STREAMING:
        return sm_snapshot_save_streaming(path, meta, &r, NULL, &o, stats, &err);
    case COMPACT:
        return sm_compact_save(path, meta, full, &o, stats, &err);
    default:
        return sm_snapshot_save_diff(
            path, meta, w == DIFF_FULL ? full : delta, base_fd, &o, stats, &err);
    }
}

static int do_write(enum writer w, unsigned threads, struct sm_snapshot_write_stats *stats)
{
    return write_with(w, threads, false, stats);
}

static void put_old(void)
{
    struct sm_snapshot_write_options o = {.no_sync = true};
    assert_int_equal(sm_snapshot_save_plain(path, meta, old_ram, &o, NULL, &err), 0);
}

static bool holds(const uint8_t *want)
{
    int fd = -1;
    struct sm_snapshot *s = NULL;
    void *got = NULL;
    if (sm_snapshot_open(path, &fd, &err))
        fail_msg("%s", err.message);
    if (sm_snapshot_load(fd, path, &s, &got, &err))
        fail_msg("%s", err.message);
    bool same = memcmp(got, want, BYTES) == 0;
    munmap(got, BYTES);
    sm_snapshot_free(s);
    close(fd);
    return same;
}

static void expect_old(void)
{
    assert_true(holds(old_ram));
    assert_int_equal(access(partial, F_OK), -1);
}

static void expect_new(void)
{
    assert_true(holds(ram));
    assert_int_equal(access(partial, F_OK), -1);
}

/* ---- tests --------------------------------------------------------------------------------- */

static void disk_full_at_every_write(void **state)
{
    (void)state;
    for (enum writer w = 0; w < WRITERS; w++) {
        put_old();
        for (unsigned threads = 1; threads <= 3; threads += 2) {
            unsigned k = 0;
            for (;; k++) {
                no_faults();
                atomic_store(&fail_write.left, (int)k);
                fail_write.error = ENOSPC;
                int rc = do_write(w, threads, NULL);
                if (!rc)
                    break;
                assert_int_equal(rc, -SM_ENOSPC);
                assert_int_equal(err.sys_errno, ENOSPC);
                assert_non_null(strstr(err.message, "No space left"));
                expect_old();
            }
            if (k < 3)
                fail_msg("%s was done after %u writes", names[w], k);
            expect_new();
            put_old();
        }
    }
}

static void each_other_call_can_fail(void **state)
{
    (void)state;
    for (enum writer w = 0; w < WRITERS; w++) {
        put_old();
        no_faults(); /* setting the length */
        atomic_store(&fail_truncate.left, 0);
        fail_truncate.error = EROFS;
        assert_int_equal(do_write(w, 2, NULL), -SM_EPERM);
        expect_old();
        no_faults();
        atomic_store(&fail_sync.left, 0);
        fail_sync.error = EIO;
        assert_int_equal(do_write(w, 2, NULL), -SM_EIO);
        assert_non_null(strstr(err.message, "disk"));
        expect_old();
        no_faults();
        atomic_store(&fail_rename.left, 0);
        fail_rename.error = EDQUOT;
        assert_int_equal(do_write(w, 2, NULL), -SM_ENOSPC);
        expect_old();
        no_faults();
        assert_int_equal(do_write(w, 2, NULL), 0);
        expect_new();
    }
}

static void short_and_interrupted_writes_go_on(void **state)
{
    (void)state;
    for (enum writer w = 0; w < WRITERS; w++) {
        put_old();
        no_faults();
        shortest = 1777;
        assert_int_equal(do_write(w, 2, NULL), 0);
        expect_new();
    }
}

static void refused_threads_leave_fewer_or_none(void **state)
{
    (void)state;
    fail_thread.error = EAGAIN;
    for (enum writer w = 0; w < WRITERS; w++) {
        for (int granted = 0; granted < 4; granted++) {
            put_old();
            no_faults();
            atomic_store(&fail_thread.left, granted);
            assert_int_equal(do_write(w, 8, NULL), 0);
            assert_int_equal(threads_made, granted);
            expect_new();
        }
        put_old();
        no_faults();
        assert_int_equal(do_write(w, 1, NULL), 0);
        assert_int_equal(threads_made, 0);
        no_faults();
        assert_int_equal(do_write(w, 4, NULL), 0);
        assert_int_equal(threads_made, 3);
    }
}

static void no_reflink_means_the_named_fallback(void **state)
{
    (void)state;
    static const int cannot[] = {EOPNOTSUPP, EXDEV, EINVAL, ENOTTY, ENOSYS};
    struct sm_snapshot_write_stats stats;
    for (size_t i = 0; i < SM_ARRAY_LEN(cannot); i++) {
        put_old();
        no_faults();
        atomic_store(&fail_clone.left, 0);
        fail_clone.error = cannot[i];
        assert_int_equal(do_write(DIFF_FULL, 2, &stats), 0);
        assert_int_equal(stats.method, SM_SNAPSHOT_WRITTEN);
        assert_int_equal(stats.ram_data_bytes, sm_compact_pages(full) * SM_SNAPSHOT_PAGE);
        expect_new();

        put_old();
        no_faults();
        atomic_store(&fail_clone.left, 0);
        assert_int_equal(do_write(DIFF_DELTA, 2, &stats), 0);
        assert_int_equal(stats.method, SM_SNAPSHOT_COPIED);
        assert_true(copies > 0);
        expect_new();

        put_old();
        no_faults();
        atomic_store(&fail_clone.left, 0);
        atomic_store(
            &fail_copy.left, (int)i); /* the kernel cannot copy either, or stops on the way */
        fail_copy.error = cannot[i];
        assert_int_equal(do_write(DIFF_DELTA, 2, &stats), 0);
        expect_new();
    }
    static const int broken[] = {EIO, ENOSPC, EDQUOT};
    for (size_t i = 0; i < SM_ARRAY_LEN(broken); i++) {
        put_old();
        no_faults();
        atomic_store(&fail_clone.left, 0);
        fail_clone.error = broken[i];
        assert_int_equal(do_write(DIFF_FULL, 2, NULL), broken[i] == EIO ? -SM_EIO : -SM_ENOSPC);
        expect_old();
        no_faults();
        atomic_store(&fail_clone.left, 0);
        fail_clone.error = EXDEV;
        atomic_store(&fail_copy.left, 0);
        fail_copy.error = broken[i];
        assert_int_equal(do_write(DIFF_DELTA, 2, NULL), broken[i] == EIO ? -SM_EIO : -SM_ENOSPC);
        expect_old();
    }
}

static void no_hole_punching_means_zeros(void **state)
{
    (void)state;
    static const int cannot[] = {EOPNOTSUPP, ENOSYS};
    struct sm_snapshot_write_stats stats;
    for (enum writer w = DIFF_FULL; w < WRITERS; w++) {
        put_old();
        no_faults();
        assert_int_equal(do_write(w, 2, &stats), 0);
        assert_int_equal(clones, 1);
        assert_int_equal(stats.method, SM_SNAPSHOT_CLONED);
        assert_true(punches > 0);
        assert_true(stats.punched_bytes / SM_SNAPSHOT_PAGE > punches); /* runs, not pages */
        expect_new();
        for (size_t i = 0; i < SM_ARRAY_LEN(cannot); i++) {
            put_old();
            no_faults();
            atomic_store(&fail_punch.left, (int)i);
            fail_punch.error = cannot[i];
            assert_int_equal(do_write(w, 2, &stats), 0);
            expect_new();
        }
        put_old();
        no_faults();
        atomic_store(&fail_punch.left, 0);
        fail_punch.error = EIO;
        assert_int_equal(do_write(w, 2, &stats), -SM_EIO);
        expect_old();
    }
}

/* The child writes for ever; we kill it whenever. */
static void killed_writers_leave_old_or_new(void **state)
{
    (void)state;
    unsigned seen_old = 0, seen_new = 0;
    srand(4711);
    for (enum writer w = 0; w < WRITERS; w++) {
        for (int round = 0; round < 24; round++) {
            bool had_old = round % 4;
            unlink(path);
            if (had_old)
                put_old();
            no_faults();
            pid_t child = fork();
            assert_true(child >= 0);
            if (child == 0) {
                shortest = round % 2 ? 20000 : 0; /* more moments to be killed at */
                write_with(w, 3, false, NULL);
                _exit(0);
            }
            struct timespec wait = {.tv_nsec = rand() % 12000000};
            nanosleep(&wait, NULL);
            kill(child, SIGKILL);
            assert_int_equal(waitpid(child, NULL, 0), child);
            if (access(path, F_OK) == 0) {
                bool is_new = holds(ram);
                if (!is_new && !(had_old && holds(old_ram)))
                    fail_msg("%s was killed and left neither file", names[w]);
                is_new ? seen_new++ : seen_old++;
            } else {
                assert_false(had_old);
            }
            assert_int_equal(write_with(w, 2, true, NULL), 0); /* leftovers do not matter */
            expect_new();
        }
    }
    if (!seen_old || !seen_new)
        print_message("killed only %s\n", seen_old ? "before the end" : "after it");
}

/* A filesystem of our own, in a mount namespace: 256 KiB for 2 MiB of RAM, then read-only. */
static int in_small_filesystem(const char *mount_point)
{
    if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS))
        return 77;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", mount_point, "tmpfs", 0, "size=256k"))
        return 77;
    for (enum writer w = 0; w < WRITERS; w++) {
        int rc = write_with(w, 2, true, NULL);
        if (rc != -SM_ENOSPC || access(path, F_OK) == 0 || access(partial, F_OK) == 0) {
            fprintf(stderr, "%s on a full disk: %d %s\n", names[w], rc, err.message);
            return 1;
        }
    }
    if (mount("none", mount_point, NULL, MS_REMOUNT | MS_RDONLY, NULL))
        return 77;
    for (enum writer w = 0; w < WRITERS; w++) {
        int rc = write_with(w, 2, true, NULL);
        if (rc != -SM_EPERM || !strstr(err.message, "Read-only")) {
            fprintf(stderr, "%s on a read-only disk: %d %s\n", names[w], rc, err.message);
            return 1;
        }
    }
    return 0;
}

static void really_full_and_read_only_disks(void **state)
{
    (void)state;
    char *keep_path = path, *keep_partial = partial, *mount_point = NULL;
    assert_true(asprintf(&mount_point, "%s/small", dir) > 0);
    assert_int_equal(mkdir(mount_point, 0700), 0);
    assert_true(asprintf(&path, "%s/snap", mount_point) > 0);
    assert_true(asprintf(&partial, "%s.partial", path) > 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(in_small_filesystem(mount_point));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    free(path), free(partial), free(mount_point);
    path = keep_path, partial = keep_partial;
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("SKIPPED: no filesystem may be mounted here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int set_up(void **state)
{
    (void)state;
    no_faults();
    dir = make_dir();
    ram = make_ram(BYTES, 1);
    old_ram = make_ram(BYTES, 2);
    meta = make_snapshot(BYTES, true);
    assert_true(asprintf(&path, "%s/snap", dir) > 0);
    assert_true(asprintf(&partial, "%s.partial", path) > 0);
    assert_true(asprintf(&base, "%s/base", dir) > 0);
    assert_int_equal(sm_snapshot_save_plain(base, meta, old_ram, NULL, NULL, &err), 0);
    assert_int_equal(sm_snapshot_open(base, &base_fd, &err), 0);
    struct sm_snapshot *s = NULL;
    assert_int_equal(sm_snapshot_load_meta(base_fd, base, &s, &err), 0);
    void *map = NULL;
    assert_int_equal(sm_snapshot_map_ram(base_fd, s, NULL, &map, &err), 0);
    mapped = map;
    for (uint64_t at = 0; at < BYTES; at += SM_SNAPSHOT_PAGE)
        if (memcmp(mapped + at, ram + at, SM_SNAPSHOT_PAGE))
            memcpy(mapped + at, ram + at, SM_SNAPSHOT_PAGE);
    struct sm_ram now = {.base = ram, .bytes = BYTES, .backing = SM_RAM_ANONYMOUS, .fd = -1};
    struct sm_ram cow = {.base = mapped,
        .bytes = BYTES,
        .backing = SM_RAM_PRIVATE_FILE,
        .fd = base_fd,
        .file_offset = s->ram_offset};
    assert_int_equal(sm_compact_new(BYTES, &full, &err), 0);
    assert_int_equal(sm_compact_capture(full, &now, false, NULL, &err), 0);
    assert_int_equal(sm_compact_new(BYTES, &delta, &err), 0);
    assert_int_equal(sm_compact_capture(delta, &cow, true, NULL, &err), 0);
    sm_snapshot_free(s);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sm_compact_free(full);
    sm_compact_free(delta);
    sm_snapshot_free(meta);
    munmap(mapped, BYTES);
    munmap(ram, BYTES);
    munmap(old_ram, BYTES);
    close(base_fd);
    free(path), free(partial), free(base);
    remove_dir(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disk_full_at_every_write),
        cmocka_unit_test(each_other_call_can_fail),
        cmocka_unit_test(short_and_interrupted_writes_go_on),
        cmocka_unit_test(refused_threads_leave_fewer_or_none),
        cmocka_unit_test(no_reflink_means_the_named_fallback),
        cmocka_unit_test(no_hole_punching_means_zeros),
        cmocka_unit_test(killed_writers_leave_old_or_new),
        cmocka_unit_test(really_full_and_read_only_disks),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
