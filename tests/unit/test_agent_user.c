/*
 * Who a command runs as: guest/agent/user.c on databases of this test's own. What is right was
 * recorded from podman 4.3.1 with crun 1.8.1 (`podman run -u X --rootfs DIR:O sh -c ...`) with the
 * same files; where we differ on purpose the row says so.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "system.h"
#include "user.h"
#include "util/bytes.h"

void *system_alloc(size_t size)
{
    return calloc(1, size);
}

void system_free(void *p, size_t size)
{
    free(p);
}

static char dir[64], passwd_path[96], group_path[96];

static void put(const char *path, const char *text)
{
    unlink(path);
    if (!text)
        return;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void databases(const char *passwd, const char *group)
{
    put(passwd_path, passwd);
    put(group_path, group);
    user_set_database(passwd_path, group_path);
}

static const char usual_passwd[] = "root:x:0:0::/var/root:/bin/sh\n"
                                   "# comment\n"
                                   "\n"
                                   "mq:x:1883:1883::/var/empty:/bin/false\r\n"
                                   "nohome:x:1884:1884:::\n"
                                   "1885:x:500:501::/named:/bin/sh\n"
                                   "dup:x:600:600::/first:/bin/sh\n"
                                   "dup:x:601:601::/second:/bin/sh\n"
                                   "sameuid:x:600:602::/third:/bin/sh\n"
                                   "short:x:700\n"
                                   "badgid:x:702:abc::/h:/bin/sh\n"
                                   "big:x:4294967296:1::/h:/bin/sh\n"
                                   "neg:x:-5:1::/h:/bin/sh\n"
                                   "  lead:x:703:703::/lead:/bin/sh\n"
                                   "last:x:704:704::/last"; /* no newline at the end */
static const char usual_group[] = "root:x:0:root\n"
                                  "bin:x:1:root,mq\n"
                                  "daemon:x:2:root,daemon\n"
                                  "wheel:x:10: root\n"
                                  "1885:x:900:\n"
                                  "g901:x:901:mq,mq\n"
                                  "g901b:x:901:mq\n"
                                  "dupg:x:910:\n"
                                  "dupg:x:911:\n"
                                  "broken:x:\n"
                                  "gshort:x:912";

struct row {
    const char *spec;
    unsigned uid, gid;
    const char *groups, *home; /* NULL: refused */
};

static int by_number(const void *a, const void *b)
{
    gid_t x = *(const gid_t *)a, y = *(const gid_t *)b;
    return x < y ? -1 : x > y;
}

/* As the kernel shows them. */
static void groups_of(struct user *u, char *text, size_t size)
{
    qsort(u->groups, u->n_groups, sizeof(u->groups[0]), by_number);
    *text = 0;
    for (size_t i = 0; i < u->n_groups; i++)
        snprintf(text + strlen(text), size - strlen(text), i ? " %u" : "%u", u->groups[i]);
}

static void try(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        struct user u;
        const char *what = "";
        char got[1024], want[1024], groups[256];
        int rc = user_find(r->spec, &u, &what);
        if (rc == 0) {
            groups_of(&u, groups, sizeof(groups));
            snprintf(got, sizeof(got), "[%s] %u %u (%s) %s", r->spec, u.uid, u.gid, groups, u.home);
        } else {
            snprintf(got, sizeof(got), "[%s] refused", r->spec);
        }
        if (r->home)
            snprintf(want, sizeof(want), "[%s] %u %u (%s) %s", r->spec, r->uid, r->gid, r->groups,
                r->home);
        else
            snprintf(want, sizeof(want), "[%s] refused", r->spec);
        assert_string_equal(got, want);
    }
}

static void everybody_is_who_podman_says(void **state)
{
    static const struct row rows[] = {
        {"", 0, 0, "0 1 2", "/var/root"},
        {":", 0, 0, "0", "/var/root"},
        {"root", 0, 0, "0 1 2", "/var/root"},
        {"0", 0, 0, "0 1 2", "/var/root"},
        {"0:0", 0, 0, "0", "/var/root"},
        {"root:root", 0, 0, "0", "/var/root"},
        {"mq", 1883, 1883, "1 901 1883", "/var/empty"},
        {"1883", 1883, 1883, "1 901 1883", "/var/empty"},
        {"mq:", 1883, 1883, "1883", "/var/empty"},
        {"nohome", 1884, 1884, "1884", "/"}, /* podman: HOME is empty */
        {"1885", 1885, 0, "0", "/"},         /* digits are no name */
        {"500", 500, 501, "501", "/named"},
        {"dup", 600, 600, "600", "/first"},
        {"600", 600, 600, "600", "/first"},
        {"601", 601, 601, "601", "/second"},
        {"sameuid", 600, 602, "602", "/third"},
        {"short", 700, 0, "0", "/"},
        {"700", 700, 0, "0", "/"},
        {"badgid", 702, 0, "0", "/h"},
        {"lead", 703, 703, "703", "/lead"},
        {"last", 704, 704, "704", "/last"},
        {"mq:1885", 1883, 1885, "1885", "/var/empty"},
        {"mq:900", 1883, 900, "900", "/var/empty"},
        {"mq:dupg", 1883, 910, "910", "/var/empty"},
        {"mq:gshort", 1883, 912, "912", "/var/empty"},
        {":bin", 0, 1, "1", "/var/root"},
        {"77", 77, 0, "0", "/"},
        {"77:78", 77, 78, "78", "/"},
        {"mq:bin:more", 1883, 1, "1", "/var/empty"},
        {"2147483647", 2147483647, 0, "0", "/"},
        {"big", 0, 0, NULL, NULL}, /* podman: root */
        {"neg", 0, 0, NULL, NULL}, /* podman: 4294967291 */
        {"2147483648", 0, 0, NULL, NULL},
        {"4294967294", 0, 0, NULL, NULL},
        {"4294967295", 0, 0, NULL, NULL},
        {"18446744073709551616", 0, 0, NULL, NULL},
        {"-1", 0, 0, NULL, NULL},
        {"0x10", 0, 0, NULL, NULL},
        {"nosuch", 0, 0, NULL, NULL},
        {"# comment", 0, 0, NULL, NULL},
        {"mq:nosuch", 0, 0, NULL, NULL},
        {"mq:broken", 0, 0, NULL, NULL},
        {"mq:-1", 0, 0, NULL, NULL},
        {"mq:4294967295", 0, 0, NULL, NULL},
    };
    databases(usual_passwd, usual_group);
    try(rows, SM_ARRAY_LEN(rows));
}

static void without_a_database_numbers_are_known(void **state)
{
    static const struct row rows[] = {
        {"", 0, 0, "0", "/"},
        {"0", 0, 0, "0", "/"},
        {"0:0", 0, 0, "0", "/"},
        {"77", 77, 0, "0", "/"},
        {"root", 0, 0, NULL, NULL},
        {"root:root", 0, 0, NULL, NULL},
        {"0:root", 0, 0, NULL, NULL},
        {":root", 0, 0, NULL, NULL},
    };
    databases(NULL, NULL);
    try(rows, SM_ARRAY_LEN(rows));
    databases("", "");
    try(rows, SM_ARRAY_LEN(rows));
}

/* podman waits for a FIFO for ever. */
static void what_is_no_database_is_refused_to_who_needs_it(void **state)
{
    static const struct row rows[] = {
        {"", 0, 0, "0", "/"},
        {"0", 0, 0, NULL, NULL},
        {"mq", 0, 0, NULL, NULL},
    };
    databases(NULL, usual_group);
    assert_int_equal(mkfifo(passwd_path, 0644), 0);
    try(rows, SM_ARRAY_LEN(rows));
    unlink(passwd_path);
    assert_int_equal(mkdir(passwd_path, 0755), 0);
    try(rows, SM_ARRAY_LEN(rows));
    rmdir(passwd_path);
    databases(usual_passwd, NULL);
    assert_int_equal(mkfifo(group_path, 0644), 0);
    static const struct row without_groups[] = {
        {"", 0, 0, "0", "/"},
        {"mq", 0, 0, NULL, NULL},
        {"mq:bin", 0, 0, NULL, NULL},
        {"mq:5", 1883, 5, "5", "/var/empty"},
    };
    try(without_groups, SM_ARRAY_LEN(without_groups));
    unlink(group_path);
    put(group_path, "");
    assert_int_equal(truncate(group_path, 1l << 40), 0);
    try(without_groups, SM_ARRAY_LEN(without_groups));
}

static void lines_too_long_for_us_are_refused(void **state)
{
    static char passwd[4096], group[1 << 16], name[300];
    struct user u;
    const char *what = "";
    memset(name, 'n', sizeof(name) - 1);
    snprintf(passwd, sizeof(passwd),
        "%.200s:x:1:1::/h:\nfar:x:2:2::/%.299s%.299s:\nmany:x:3:3::/:", name, name, name);
    for (unsigned i = 0; i < 300; i++)
        sprintf(group + strlen(group), "g%u:x:%u:many\n", i, 1000 + i);
    databases(passwd, group);
    name[200] = 0;
    assert_int_equal(user_find(name, &u, &what), SM_WIRE_E_NO_USER);
    assert_int_equal(user_find("far", &u, &what), SM_WIRE_E_NO_USER);
    assert_int_equal(user_find("many", &u, &what), SM_WIRE_E_NO_USER);
    assert_string_equal(what, "too many groups");
    memset(name, 'n', sizeof(name) - 1);
    assert_int_equal(user_find(name, &u, &what), SM_WIRE_E_NO_USER);
}

static int add(struct user *u, const char *const *names, const char **which)
{
    static char packed[256];
    size_t len = 0, count = 0;
    const char *what = "";
    for (; names[count]; count++) {
        strcpy(packed + len, names[count]);
        len += strlen(names[count]) + 1;
    }
    struct sm_wire_list list = {.data = packed, .bytes = (uint32_t)len, .count = (uint32_t)count};
    return user_add_groups(u, &list, which, &what);
}

static void groups_are_added_once(void **state)
{
    struct user u;
    const char *what = "", *which = "";
    char groups[256];
    databases(usual_passwd, usual_group);
    assert_int_equal(user_find("mq", &u, &what), 0);
    assert_int_equal(add(&u, (const char *[]){"daemon", "777", "1", "901", NULL}, &which), 0);
    groups_of(&u, groups, sizeof(groups));
    assert_string_equal(groups, "1 2 777 901 1883");
    assert_int_equal(u.gid, 1883);
    static const char *const none[] = {"nosuch", "-1", "4294967295", ""};
    for (size_t i = 0; i < SM_ARRAY_LEN(none); i++) {
        assert_int_equal(
            add(&u, (const char *[]){"bin", none[i], NULL}, &which), SM_WIRE_E_NO_USER);
        assert_string_equal(which, none[i]);
    }
}

/* A change time cannot be set, but the time that it is compared with. */
static time_t later;

int __real_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
    int rc = __real_clock_gettime(clock, t);
    t->tv_sec += later;
    return rc;
}

/* The number of times that a file was read is not seen; that a change is, is. */
static void an_answer_is_given_again_until_a_file_changes(void **state)
{
    struct user u;
    const char *what = "";
    databases("root:x:0:0::/one:\n", "g:x:5:root\n");
    assert_int_equal(user_find("", &u, &what), 0);
    assert_string_equal(u.home, "/one");
    put(passwd_path, "root:x:0:0::/two:\n"); /* the same length, the same second */
    assert_int_equal(user_find("", &u, &what), 0);
    assert_string_equal(u.home, "/two");
    later = 10;
    assert_int_equal(user_find("", &u, &what), 0);
    int fd = open(passwd_path, O_WRONLY | O_CLOEXEC); /* in place */
    assert_int_equal(pwrite(fd, "root:x:0:0::/six:\n", 18, 0), 18);
    close(fd);
    assert_int_equal(user_find("", &u, &what), 0);
    assert_string_equal(u.home, "/six");
    put(group_path, "g:x:6:root\n");
    assert_int_equal(user_find("", &u, &what), 0);
    assert_int_equal(u.groups[1], 6);
    assert_int_equal(user_find("0:6", &u, &what), 0);
    assert_int_equal(u.gid, 6);
    put(passwd_path, NULL);
    assert_int_equal(user_find("", &u, &what), 0);
    assert_string_equal(u.home, "/");
    later = 0;
}

static int make_dir(void **state)
{
    strcpy(dir, "/tmp/sm-user-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(passwd_path, sizeof(passwd_path), "%s/passwd", dir);
    snprintf(group_path, sizeof(group_path), "%s/group", dir);
    return 0;
}

static int remove_dir(void **state)
{
    unlink(passwd_path);
    unlink(group_path);
    return rmdir(dir);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(everybody_is_who_podman_says),
        TEST(without_a_database_numbers_are_known),
        TEST(what_is_no_database_is_refused_to_who_needs_it),
        TEST(lines_too_long_for_us_are_refused),
        TEST(groups_are_added_once),
        TEST(an_answer_is_given_again_until_a_file_changes),
    };
    return cmocka_run_group_tests_name("agent user", tests, NULL, NULL);
}
