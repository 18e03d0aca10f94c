/* supermachine-image as the library starts it. The program is this one: it tells which descriptors
 * it has. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/client.h"

#define MOST 64

static int be_the_program(void)
{
    printf("{\"error\": {\"code\": %d, \"message\": \"has", SM_EIO);
    for (int fd = 0; fd < MOST; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            printf(" %d", fd);
    }
    printf("\"}}\n");
    return 0;
}

/* Tells its arguments but for its name and who started it, and what it is told. */
static int be_a_listener(int argc, char **argv)
{
    char text[4096], told[2048];
    ssize_t size = read(STDIN_FILENO, told, sizeof(told));
    int n = snprintf(text, sizeof(text), "%s", argv[1]);
    for (int i = 4; i < argc; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, " %s", argv[i]);
    snprintf(text + n, sizeof(text) - (size_t)n, "\n%.*s", (int)size, told);
    json_t *line = json_pack("{s:{s:i, s:s}}", "error", "code", (int)SM_EIO, "message", text);
    char *dump = json_dumps(line, JSON_COMPACT);
    printf("%s\n", dump);
    free(dump);
    json_decref(line);
    return strcmp(argv[2], "--parent") != 0 || atoi(argv[3]) != getppid();
}

/* The file that grows whenever the slow program has done a little. */
static const char *moves(void)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/moves", getenv("SUPERMACHINE_LIBEXEC_DIR"));
    return path;
}

/* Says nothing for a while, and does little meanwhile. */
static int be_slow(void)
{
    for (int i = 0; i < 20; i++) {
        int fd = open(moves(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, "x", 1) != 1)
            return 1;
        close(fd);
        usleep(50000);
    }
    printf("{\"error\": {\"code\": %d, \"message\": \"slow\"}}\n", SM_EIO);
    return 0;
}

/* The long silences of the library pass quickly here (the linker leads its calls to this), where a
 * program is to be silent. */
#define SILENCE_MS 200

static bool has_moved(void)
{
    static off_t seen;
    struct stat st;
    bool has = stat(moves(), &st) == 0 && st.st_size > seen;
    if (has)
        seen = st.st_size;
    return has;
}

int __real_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    const char *mode = getenv("SM_TEST_BUILDER");
    if (timeout <= 60000 || !mode)
        return __real_poll(fds, n, timeout);
    int got;
    do /* the slow one gets to do its little in each, however busy the host is */
        got = __real_poll(fds, n, SILENCE_MS);
    while (got == 0 && strcmp(mode, "slow") == 0 && !has_moved());
    return got;
}

static char dir[] = "/tmp/sm-builder-XXXXXX";

static int set_up(void **state)
{
    char exe[PATH_MAX] = "", path[PATH_MAX];
    if (!mkdtemp(dir) || readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0)
        return -1;
    snprintf(path, sizeof(path), "%s/supermachine-image", dir);
    return symlink(exe, path) || setenv("SUPERMACHINE_LIBEXEC_DIR", dir, 1) ? -1 : 0;
}

static int tear_down(void **state)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/supermachine-image", dir);
    return unlink(path) || rmdir(dir) ? -1 : 0;
}

/* Descriptors of a caller that has left them open for all that it starts. */
static void leave_open(int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        fds[i] = dup(STDIN_FILENO);
        assert_true(fds[i] > STDERR_FILENO && fds[i] < MOST);
    }
}

static void it_has_its_three_descriptors(void **state)
{
    sm_error err;
    int fds[8];
    leave_open(fds, 8);
    assert_int_equal(sm_builder_logout("example.com", NULL, &err), -SM_EIO);
    assert_string_equal(err.message, "has 0 1 2");
    assert_int_equal(sm_builder_login("example.com", "user", "password", NULL, &err), -SM_EIO);
    assert_string_equal(err.message, "has 0 1 2");
    for (size_t i = 0; i < 8; i++)
        close(fds[i]);
}

/* With a stream to read from it has that, too. */
static void a_stream_is_the_fourth(void **state)
{
    struct sm_imgstore *store;
    char *loaded, path[PATH_MAX], command[PATH_MAX + 16];
    sm_error err;
    int fds[8];
    leave_open(fds, 8);
    snprintf(path, sizeof(path), "%s/store", dir);
    assert_int_equal(sm_imgstore_open(&store, path, &err), 0);
    assert_int_equal(sm_builder_load(store, "-", NULL, &loaded, &err), -SM_EIO);
    assert_string_equal(err.message, "has 0 1 2 3");
    assert_int_equal(sm_builder_load(store, "file", NULL, &loaded, &err), -SM_EIO);
    assert_string_equal(err.message, "has 0 1 2");
    sm_imgstore_close(store);
    for (size_t i = 0; i < 8; i++)
        close(fds[i]);
    snprintf(command, sizeof(command), "rm -r %s", path);
    assert_int_equal(system(command), 0);
}

/* What it is to do is there for all to see, the password is not. */
static void it_is_told_what_to_do_and_how(void **state)
{
    sm_error err;
    const struct sm_builder_options options = {
        .fetch = {.tls_ca = "/ca.pem", .insecure = true, .stall_s = 5}};
    char *longest = malloc(SM_BUILDER_MAX_SECRET + 2);
    assert_non_null(longest);
    memset(longest, 'x', SM_BUILDER_MAX_SECRET + 1);
    longest[SM_BUILDER_MAX_SECRET + 1] = '\0';
    setenv("SM_TEST_BUILDER", "listener", 1);
    assert_int_equal(sm_builder_login("example.com", "user", "secret", &options, &err), -SM_EIO);
    assert_string_equal(err.message,
        "login --user user -- example.com\n"
        "{\"tls-ca\":\"/ca.pem\",\"insecure-registry\":true,\"stall-timeout\":5}\nsecret");
    assert_int_equal(sm_builder_logout("-x", NULL, &err), -SM_EIO);
    assert_string_equal(err.message, "logout -- -x\n{}\n");
    assert_int_equal(sm_builder_login("example.com", "user", longest, NULL, &err), -SM_EINVAL);
    longest[SM_BUILDER_MAX_SECRET] = '\0';
    assert_int_equal(sm_builder_login("example.com", "user", longest, NULL, &err), -SM_EIO);
    unsetenv("SM_TEST_BUILDER");
    free(longest);
}

static void it_may_be_silent_as_long_as_it_lives(void **state)
{
    sm_error err;
    setenv("SM_TEST_BUILDER", "slow", 1);
    assert_int_equal(sm_builder_logout("example.com", NULL, &err), -SM_EIO);
    assert_string_equal(err.message, "slow");
    assert_int_equal(unlink(moves()), 0);
    setenv("SM_TEST_BUILDER", "hung", 1);
    assert_int_equal(sm_builder_logout("example.com", NULL, &err), -SM_ETIMEOUT);
    assert_non_null(strstr(err.message, "said nothing"));
    unsetenv("SM_TEST_BUILDER");
}

int main(int argc, char **argv)
{
    const char *mode = getenv("SM_TEST_BUILDER");
    if (argc > 1 && !mode)
        return be_the_program();
    if (argc > 1 && strcmp(mode, "listener") == 0)
        return be_a_listener(argc, argv);
    if (argc > 1)
        return strcmp(mode, "slow") == 0 ? be_slow() : pause();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_has_its_three_descriptors),
        cmocka_unit_test(a_stream_is_the_fourth),
        cmocka_unit_test(it_is_told_what_to_do_and_how),
        cmocka_unit_test(it_may_be_silent_as_long_as_it_lives),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
