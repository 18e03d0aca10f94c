/* The lists of the public API: of an empty store, with one, with many; and what they promise of
 * each row. What becomes of root filesystems and their seals. */
#include "snapshot_util.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "api/internal.h"
#include "image/record.h"
#include "image/seal.h"
#include "image/store_files.h"
#include "image/tags.h"
#include "util/bytes.h"

static sm_error err;
static char *dir;
static sm_store *store;
static unsigned synced_directories;

/* Instead of the C library's: what is in memory need not come to disk, and what was asked for is
 * counted. */
int fsync(int fd)
{
    struct stat st;
    synced_directories += fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    return 0;
}

/* What cannot be removed: files with this in their names; NULL: there are none. */
static const char *stuck;

int unlinkat(int fd, const char *path, int flags)
{
    if (stuck && strstr(path, stuck)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_unlinkat, fd, path, flags);
}

static int open_store(void **state)
{
    dir = make_dir();
    assert_int_equal(sm_store_open(&store, dir, &err), 0);
    return 0;
}

static int close_store(void **state)
{
    sm_store_close(store);
    remove_dir(dir);
    return 0;
}

/* The digest of image number i. */
static const char *digest_of(unsigned i)
{
    static char digest[SM_DIGEST_LEN + 1];
    snprintf(digest, sizeof(digest), "sha256:%064x", i);
    return digest;
}

static void put_image(unsigned i, const char *source)
{
    char digest[SM_DIGEST_LEN + 1], rootfs[SM_STORE_NAME_MAX];
    snprintf(digest, sizeof(digest), "%s", digest_of(i));
    sm_store_rootfs_name(digest, rootfs);
    char platform[] = "linux/amd64", config[] = "{}";
    const struct sm_image_info info = {.digest = digest,
        .platform = platform,
        .config = config,
        .source = (char *)(uintptr_t)source,
        .rootfs_path = rootfs,
        .rootfs_size = 2 << 20,
        .created = 1000 + i};
    assert_int_equal(sm_store_put_image(store->images, &info, &err), 0);
}

static void put_name(const char *name, const char *digest)
{
    auto_reference ref = NULL;
    assert_int_equal(sm_reference_parse(name, &ref, &err), 0);
    assert_int_equal(sm_store_put_tag(store->images, ref, digest, &err), 0);
}

struct rows {
    unsigned count, names, strings;
    char last[200]; /* name, of the last row that has one */
};

static void count_image(void *arg, const sm_store_image *image)
{
    struct rows *rows = arg;
    rows->count++;
    assert_non_null(image->names);
    for (const char *const *name = image->names; *name; name++, rows->names++)
        snprintf(rows->last, sizeof(rows->last), "%s", *name);
    assert_true(strlen(image->digest) && strlen(image->platform) && strlen(image->source));
}

static struct rows images(void)
{
    struct rows rows = {0};
    assert_int_equal(sm_store_list(store, count_image, &rows, &err), 0);
    return rows;
}

static void images_are_listed_with_no_one_and_many_names(void **state)
{
    assert_int_equal(images().count, 0);
    put_image(1, "localhost:5000/app:1");
    struct rows rows = images(); /* its name has moved, or it was pulled by its digest */
    assert_int_equal(rows.count, 1);
    assert_int_equal(rows.names, 0);
    put_name("localhost:5000/app:1", digest_of(2)); /* of an image that is not here */
    assert_int_equal(images().names, 0);
    put_name("localhost:5000/app:1", digest_of(1));
    rows = images();
    assert_int_equal(rows.names, 1);
    assert_string_equal(rows.last, "localhost:5000/app:1");
    for (unsigned i = 2; i < 40; i++)
        put_image(i, i % 2 ? "localhost:5000/other:1" : "oci:/layout:a");
    for (unsigned i = 0; i < 30; i++) {
        char name[40];
        snprintf(name, sizeof(name), "example.com/app%u:1", i);
        put_name(name, digest_of(3));
    }
    rows = images();
    assert_int_equal(rows.count, 39);
    assert_int_equal(rows.names, 1 + 19 + 30);
    sm_prune_result result;
    assert_int_equal(sm_store_prune_images(store, true, &result, &err), 0);
    assert_int_equal(result.images, 37);
    assert_int_equal(images().count, 2);
    assert_int_equal(sm_store_remove(store, digest_of(1), &err), 0);
    assert_int_equal(sm_store_remove(store, digest_of(3), &err), 0);
    assert_int_equal(images().count, 0);
}

/* JSON holds no other. */
static void a_source_that_is_no_utf8_is_refused(void **state)
{
    char digest[SM_DIGEST_LEN + 1], text[] = "linux/amd64", source[] = "oci:/\xff";
    snprintf(digest, sizeof(digest), "%s", digest_of(1));
    const struct sm_image_info info = {
        .digest = digest, .platform = text, .config = text, .source = source, .rootfs_path = text};
    assert_int_equal(sm_store_put_image(store->images, &info, &err), -SM_EINVAL);
    assert_non_null(strstr(err.message, "not UTF-8: rename it"));
    assert_int_equal(images().count, 0);
}

static void damaged_names_lead_nowhere(void **state)
{
    put_image(1, "localhost:5000/app:1");
    static const char *const damaged[] = {
        "", "\n", "sha256:", "sha256:0\n", "md5:1", "/etc/passwd"};
    char name[SM_STORE_NAME_MAX];
    for (unsigned i = 0; i < SM_ARRAY_LEN(damaged); i++) {
        snprintf(name, sizeof(name), "refs/localhost:5000/app/:%u", i);
        assert_int_equal(
            sm_store_write(store->images, name, damaged[i], strlen(damaged[i]), &err), 0);
    }
    struct rows rows = images();
    assert_int_equal(rows.count, 1);
    assert_int_equal(rows.names, 0);
}

static void count_snapshot(void *arg, const sm_store_snapshot *s)
{
    struct rows *rows = arg;
    rows->count++;
    assert_non_null(s->digest);
    assert_non_null(s->source);
    assert_string_equal(s->state, "damaged");
    assert_true(strlen(s->key) && strlen(s->path));
}

static void snapshots_are_listed_whatever_they_hold(void **state)
{
    struct rows rows = {0};
    assert_int_equal(sm_store_snapshots(store, count_snapshot, &rows, &err), 0);
    assert_int_equal(rows.count, 0);
    for (unsigned n = 1; n < 40; n++) {
        char name[40];
        snprintf(name, sizeof(name), "snapshots/key%u.snap", n);
        free(make_file(dir, name, "no snapshot", n % 3 ? 11 : 0));
        rows.count = 0;
        assert_int_equal(sm_store_snapshots(store, count_snapshot, &rows, &err), 0);
        assert_int_equal(rows.count, n);
    }
}

/* ---- root file systems ----------------------------------------------------------------------- */

/* Gives image i a sealed root filesystem; its path, to be freed. */
static char *put_rootfs(unsigned i)
{
    char name[SM_STORE_NAME_MAX];
    char *bytes = calloc(1, 2 << 20);
    assert_non_null(bytes);
    bytes[1 << 20] = 'x';
    sm_store_rootfs_name(digest_of(i), name);
    assert_true(mkdirat(store->images->fd, "rootfs", 0700) == 0 || errno == EEXIST);
    char *path = make_file(dir, name, bytes, 2 << 20);
    free(bytes);
    auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(sm_seal_make(store->images, name, fd, &err), 0);
    return path;
}

static int check_seal(const char *path)
{
    auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
    return sm_seal_check(store->images, path, fd, SM_SEAL_GLANCE, &err);
}

/* A builder that tells that it was started, and fails. */
static void put_builder(void)
{
    char script[512];
    int n = snprintf(script, sizeof(script), "#!/bin/sh\n: >%s/started\nexit 1\n", dir);
    auto_free char *path = make_file(dir, "supermachine-image", script, (size_t)n);
    assert_int_equal(chmod(path, 0700), 0);
    assert_int_equal(setenv("SUPERMACHINE_LIBEXEC_DIR", dir, 1), 0);
}

static bool was_built(void)
{
    return faccessat(store->images->fd, "started", F_OK, 0) == 0;
}

static void what_a_killed_builder_left_goes_alone(void **state)
{
    char partial[SM_STORE_NAME_MAX];
    sm_prune_result result;
    put_image(1, "localhost:5000/app:1");
    auto_free char *path = put_rootfs(1);
    snprintf(partial, sizeof(partial), "%s.partial", path);
    assert_int_equal(link(path, partial), 0);
    assert_int_equal(sm_store_prune_images(store, false, &result, &err), 0);
    assert_int_equal(result.rootfs, 1);
    assert_int_not_equal(access(partial, F_OK), 0);
    assert_int_equal(check_seal(path), 0);
}

static int prune_with_stuck(const char *name, bool all, sm_prune_result *result)
{
    memset(result, 0xff, sizeof(*result));
    stuck = name;
    int rc = sm_store_prune_images(store, all, result, &err);
    stuck = NULL;
    if (!strstr(err.message, "cannot remove"))
        fail_msg("'%s'", err.message);
    return rc;
}

/* Of what it removed nothing is to be seen any more: it has to say it, whatever it fails at. */
static void a_prune_that_fails_in_part_tells_what_went(void **state)
{
    sm_prune_result result;
    for (unsigned i = 1; i <= 3; i++)
        put_image(i, "oci:/layout:a");
    assert_int_equal(prune_with_stuck(digest_of(2) + 7, true, &result), -SM_EIO);
    assert_int_equal(result.images, 2);
    assert_int_equal(images().count, 1);

    for (unsigned i = 4; i <= 6; i++)
        free(put_rootfs(i));
    assert_int_equal(prune_with_stuck(digest_of(5) + 7, false, &result), -SM_EIO);
    assert_non_null(strstr(err.message, digest_of(5) + 7));
    assert_int_equal(result.rootfs, 2);
    assert_int_equal(result.images, 0);
    assert_int_equal(sm_store_prune_images(store, true, &result, &err), 0);
    assert_int_equal(result.images, 1);
    assert_int_equal(result.rootfs, 1);
}

static void verifying_tells_and_mends_nothing(void **state)
{
    put_builder();
    put_image(1, "oci:/nowhere:1");
    auto_free char *path = put_rootfs(1);
    assert_int_equal(sm_store_verify(store, digest_of(1), &err), 0);
    assert_int_equal(sm_store_verify(store, digest_of(2), &err), -SM_ENOTFOUND);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    auto_fd fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "y", 1, 1 << 20), 1);
    assert_int_equal(sm_store_verify(store, digest_of(1), &err), -SM_ECORRUPT);
    assert_non_null(strstr(err.message, "made anew when it is used next"));
    assert_int_equal(pwrite(fd, "x", 1, 1 << 20), 1); /* until then it stays unused */
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    assert_int_equal(sm_store_verify(store, digest_of(1), &err), -SM_ECORRUPT);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(sm_store_verify(store, digest_of(1), &err), -SM_ECORRUPT);
    assert_false(was_built());
}

/* What is wrong then is not the file. */
static void a_seal_that_cannot_be_opened_is_no_damage(void **state)
{
    put_builder();
    put_image(1, "oci:/nowhere:1");
    auto_free char *path = put_rootfs(1);
    auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = before;
    none.rlim_cur = (rlim_t)fd;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int rc = sm_seal_check(store->images, path, fd, SM_SEAL_GLANCE, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_not_equal(rc, 0);
    assert_int_not_equal(rc, -SM_ECORRUPT);
    char seal[SM_STORE_NAME_MAX];
    snprintf(seal, sizeof(seal), "seals/sha256-%s.v%d", digest_of(1) + 7, SM_ROOTFS_FORMAT);
    assert_int_equal(unlinkat(store->images->fd, seal, 0), 0);
    assert_int_equal(mkdirat(store->images->fd, seal, 0700), 0); /* reading it fails */
    sm_image *image = NULL;
    rc = sm_image_open(store, digest_of(1), NULL, &image, &err);
    assert_int_not_equal(rc, 0);
    assert_int_not_equal(rc, -SM_ECORRUPT);
    assert_false(was_built());
    assert_int_equal(unlinkat(store->images->fd, seal, AT_REMOVEDIR), 0);
    assert_int_equal(check_seal(path), -SM_ECORRUPT); /* it has none */
}

/* The code is that of the sentence. */
static void what_cannot_be_made_anew_says_why(void **state)
{
    sm_image *image = NULL;
    put_builder();
    put_image(1, "oci:/nowhere:1");
    assert_int_equal(sm_image_open(store, digest_of(1), NULL, &image, &err), -SM_EIO);
    assert_int_equal(err.code, SM_EIO);
    assert_true(was_built());
    assert_non_null(strstr(err.message, "making it anew"));
}

/* Or a crash leaves a root filesystem that counts as damaged. */
static void a_seal_is_on_disk_before_what_it_seals_has_its_name(void **state)
{
    synced_directories = 0;
    free(put_rootfs(1));
    assert_int_equal(synced_directories, 3); /* and that there are seals/ and tmp/ */
    free(put_rootfs(2));
    assert_int_equal(synced_directories, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            images_are_listed_with_no_one_and_many_names, open_store, close_store),
        cmocka_unit_test_setup_teardown(
            what_a_killed_builder_left_goes_alone, open_store, close_store),
        cmocka_unit_test_setup_teardown(
            a_prune_that_fails_in_part_tells_what_went, open_store, close_store),
        cmocka_unit_test_setup_teardown(verifying_tells_and_mends_nothing, open_store, close_store),
        cmocka_unit_test_setup_teardown(
            a_seal_that_cannot_be_opened_is_no_damage, open_store, close_store),
        cmocka_unit_test_setup_teardown(what_cannot_be_made_anew_says_why, open_store, close_store),
        cmocka_unit_test_setup_teardown(
            a_seal_is_on_disk_before_what_it_seals_has_its_name, open_store, close_store),
        cmocka_unit_test_setup_teardown(
            a_source_that_is_no_utf8_is_refused, open_store, close_store),
        cmocka_unit_test_setup_teardown(damaged_names_lead_nowhere, open_store, close_store),
        cmocka_unit_test_setup_teardown(
            snapshots_are_listed_whatever_they_hold, open_store, close_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
