/* Directories of the upper layer (guest/agent/upper.c), in a directory of the test's own. */
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
#include <sys/xattr.h>
#include <unistd.h>
#include <cmocka.h>

#include "upper.h"
#include "shell.h"

static char top[] = "/tmp/sm-test-XXXXXX", lower[64], upper[64];

static int setup(void **state)
{
    (void)state;
    strcpy(top + strlen(top) - 6, "XXXXXX");
    assert_non_null(mkdtemp(top));
    snprintf(lower, sizeof(lower), "%s/l", top);
    snprintf(upper, sizeof(upper), "%s/u", top);
    sh("mkdir %s %s", lower, upper);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sh("rm -rf %s", top);
    return 0;
}

/* Makes it, a file in it, and finishes; what was said by make. */
static int make(const char *path, struct upper_dir *d)
{
    int fd = -1;
    *d = (struct upper_dir){.lower = lower, .upper = upper};
    int e = upper_dir_make(d, path, &fd);
    if (e)
        return e;
    int file = openat(fd, "hosts", O_WRONLY | O_CREAT | O_EXCL, 0644);
    assert_true(file >= 0);
    close(file);
    close(fd);
    assert_int_equal(upper_dir_finish(d), 0);
    return 0;
}

static void look(const char *layer, const char *path, struct stat *st)
{
    char name[256];
    snprintf(name, sizeof(name), "%s%s", layer, path);
    if (lstat(name, st))
        fail_msg("%s: %s", name, strerror(errno));
}

static void same(const char *path)
{
    struct stat a, b;
    look(lower, path, &a);
    look(upper, path, &b);
    assert_int_equal(a.st_mode, b.st_mode);
    assert_int_equal(a.st_uid, b.st_uid);
    assert_int_equal(a.st_gid, b.st_gid);
    assert_int_equal(a.st_mtim.tv_sec, b.st_mtim.tv_sec);
    assert_int_equal(a.st_mtim.tv_nsec, b.st_mtim.tv_nsec);
}

static void a_directory_keeps_what_it_has(void **state)
{
    (void)state;
    struct upper_dir d;
    char name[256], value[16];
    sh("mkdir -m 3711 %s/etc", lower);
    if (getuid() == 0)
        sh("chown 5:6 %s/etc && chmod 3711 %s/etc", lower, lower);
    snprintf(name, sizeof(name), "%s/etc", lower);
    bool attributes = setxattr(name, "user.note", "kept", 4, 0) == 0;
    sh("touch -d @1000.5 %s/etc", lower);
    assert_int_equal(make("/etc", &d), 0);
    assert_string_equal(d.real, "/etc");
    same("/etc");
    snprintf(name, sizeof(name), "%s/etc", upper);
    if (attributes)
        assert_int_equal(getxattr(name, "user.note", value, sizeof(value)), 4);
}

/* "/" is one of the directories on the way. */
static void the_root_keeps_what_it_has(void **state)
{
    (void)state;
    struct upper_dir d;
    struct stat st;
    sh("mkdir %s/etc && chmod 0711 %s", lower, lower);
    if (getuid() == 0)
        sh("chown 5:6 %s", lower);
    sh("touch -d @1000.5 %s", lower);
    assert_int_equal(make("/etc", &d), 0);
    same("");
    look(upper, "", &st);
    assert_int_equal(st.st_mode & 07777, 0711);
    assert_int_equal(st.st_mtim.tv_sec, 1000);
}

static void links_lead_to_where_they_lead_in_the_image(void **state)
{
    (void)state;
    struct upper_dir d;
    struct stat st;
    sh("mkdir -p -m 0750 %s/nix/store/x-env/etc && chmod 0711 %s/nix && touch -d @2000 "
       "%s/nix/store",
        lower, lower, lower);
    sh("ln -s ../../nix/./up/x-env/etc %s/etc && ln -s /nix/../nix//store %s/nix/up", lower, lower);
    assert_int_equal(make("/etc", &d), 0);
    assert_string_equal(d.real, "/nix/store/x-env/etc");
    same("/nix");
    same("/nix/store");
    same("/nix/store/x-env/etc");
    look(upper, "/nix/store/x-env/etc/hosts", &st);
    char name[256];
    snprintf(name, sizeof(name), "%s/etc", upper);
    assert_int_equal(lstat(name, &st), -1); /* it would hide the link */
}

static void what_is_missing_is_made(void **state)
{
    (void)state;
    struct upper_dir d;
    struct stat st;
    assert_int_equal(make("/etc", &d), 0);
    look(upper, "/etc", &st);
    assert_int_equal(st.st_mode, S_IFDIR | 0755);
    sh("ln -s gone/etc %s/dangling", lower);
    assert_int_equal(make("/dangling", &d), 0);
    assert_string_equal(d.real, "/gone/etc");
    look(upper, "/gone/etc/hosts", &st);
}

static void what_is_no_directory_is_said(void **state)
{
    (void)state;
    struct upper_dir d;
    sh("touch %s/file && ln -s file %s/link && ln -s /file/etc %s/below && ln -s loop %s/loop",
        lower, lower, lower, lower);
    assert_int_equal(make("/file", &d), ENOTDIR);
    assert_int_equal(make("/link", &d), ENOTDIR);
    assert_int_equal(make("/below", &d), ENOTDIR);
    assert_int_equal(make("/loop", &d), ELOOP);
    sh("ln -s $(printf %%01000d 1) %s/long && mkdir %s/a && ln -s a/$(printf %%01020d 1) %s/longer",
        lower, lower, lower);
    assert_int_equal(make("/long", &d), ENAMETOOLONG);
    assert_int_equal(make("/longer", &d), ENAMETOOLONG);
    sh("test -z \"$(ls %s)\"", upper);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_directory_keeps_what_it_has),
        TEST(the_root_keeps_what_it_has),
        TEST(links_lead_to_where_they_lead_in_the_image),
        TEST(what_is_missing_is_made),
        TEST(what_is_no_directory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
