/* Names of VMs, and the sockets behind them. No VM is needed: one that is not up yet answers,
 * too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "cli/cli.h"
#include "patience.h"
#include "cli/control.h"
#include "cli/control_lines.h"

static char message[1024], runtime[64];

/* What control.c needs of main.c. */
int cli_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    return CLI_EXIT_FAILURE;
}

/* Limits of sockets: none of those that are waited for is longer than a millisecond, where a test
 * says so. */
static bool hasty;
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    static const struct timeval soon = {.tv_usec = 1000};
    bool limit = level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO);
    return __real_setsockopt(fd, level, name, hasty && limit ? &soon : value, size);
}

static int setup(void **state)
{
    strcpy(runtime, "/tmp/sm-test-XXXXXX");
    assert_non_null(mkdtemp(runtime));
    return setenv("XDG_RUNTIME_DIR", runtime, 1);
}

/* Nothing is left. */
static int teardown(void **state)
{
    return rmdir(runtime);
}

static struct cli_control *reserve(const char *name)
{
    bool taken;
    struct cli_control *c = cli_control_reserve(name, &taken);
    assert_false(taken);
    return c;
}

/* Asks it, and gets a refusal of these words. */
static void refuses(const char *name, const char *words)
{
    static sm_vm_port ports[SM_VM_MAX_PORTS];
    size_t n;
    assert_int_equal(cli_control_ports(name, ports, &n), CLI_EXIT_FAILURE);
    if (!strstr(message, words))
        fail_msg("'%s' lacks '%s'", message, words);
}

static void of_two_with_one_name_the_second_has_none(void **state)
{
    bool taken;
    struct cli_control *web = reserve("web"), *other = reserve("other");
    assert_true(web && other);
    assert_null(cli_control_reserve("web", &taken));
    assert_true(taken);
    refuses("web", "not up yet");
    refuses("we", "no VM named 'we'");
    cli_control_close(web);
    refuses("web", "no VM named 'web'");
    web = reserve("web");
    assert_non_null(web);
    cli_control_close(web);
    cli_control_close(other);
}

static void what_is_no_name_of_a_file_is_no_name(void **state)
{
    static const char *const names[] = {"", "..", "a/b"};
    for (size_t i = 0; i < 3; i++) {
        errno = 0;
        assert_null(reserve(names[i]));
        assert_int_equal(errno, EINVAL);
    }
    refuses("../web", "no VM named");
    refuses("", "no VM named");
}

static int take_and_die(const char *name)
{
    bool taken;
    return raise(cli_control_reserve(name, &taken) ? SIGKILL : SIGTERM);
}

/* A process that has the name is killed: this program, anew, as threads and fork do not go
 * together. */
static void leave(const char *name)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "leave", name, (char *)NULL);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    char path[128];
    snprintf(path, sizeof(path), "%s/supermachine/%s", runtime, name);
    assert_int_equal(access(path, F_OK), 0);
}

static void what_a_killed_owner_left_goes(void **state)
{
    leave("web");
    struct cli_control *web = reserve("web");
    assert_non_null(web);
    leave("job");
    refuses("web", "not up yet"); /* the one that lives is not swept */
    leave("job-2");
    cli_control_close(web);
    leave("job-3");
    refuses("job-2", "no VM named");
}

static void a_directory_of_others_is_not_used(void **state)
{
    char dir[96];
    snprintf(dir, sizeof(dir), "%s/supermachine", runtime);
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(chmod(dir, 0770), 0);
    assert_null(reserve("web"));
    assert_int_equal(errno, EPERM);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(symlink("/tmp", dir), 0);
    assert_null(reserve("web"));
    assert_int_equal(unlink(dir), 0);
}

static void where_names_cannot_be_is_told(void **state)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/nowhere", runtime);
    assert_int_equal(setenv("XDG_RUNTIME_DIR", path, 1), 0);
    errno = 0;
    assert_null(reserve("web"));
    assert_int_equal(errno, ENOENT);
}

/* While no descriptor is free nothing can be accepted; then the request is answered. */
static void descriptors_that_run_out_do_not_end_it(void **state)
{
    struct cli_control *web = reserve("web");
    assert_non_null(web);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/supermachine/web", runtime);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = before;
    int next = dup(fd);
    none.rlim_cur = (rlim_t)next;
    close(next);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    usleep(50000);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    assert_int_equal(send(fd, "ports\n", 6, 0), 6);
    char answer[6] = "";
    assert_int_equal(recv(fd, answer, 5, MSG_WAITALL), 5);
    assert_string_equal(answer, "error");
    close(fd);
    cli_control_close(web);
}

/* A VM that takes its time. Who looks whether it lives says nothing. */
static void *answer_late(void *arg)
{
    const int *listener = arg;
    char request[64] = "";
    int fd;
    do {
        fd = accept(*listener, NULL, NULL);
        if (recv(fd, request, sizeof(request) - 1, 0) > 0)
            break;
    } while (close(fd) == 0);
    if (strcmp(request, "snapshot /a.snap\n") == 0) {
        usleep(200000);
        send(fd, "ok 1 2 3 4\n", 11, MSG_NOSIGNAL);
    }
    close(fd);
    return NULL;
}

static void an_answer_is_waited_for_while_the_vm_lives(void **state)
{
    char dir[96];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    pthread_t thread;
    sm_snapshot_stats stats = {0};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(dir, sizeof(dir), "%s/supermachine", runtime);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/web", dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(pthread_create(&thread, NULL, answer_late, &fd), 0);
    hasty = true;
    int status = cli_control_snapshot("web", "/a.snap", &stats);
    hasty = false;
    pthread_join(thread, NULL);
    close(fd);
    assert_int_equal(unlink(address.sun_path), 0);
    assert_int_equal(rmdir(dir), 0);
    if (status)
        fail_msg("%s", message);
    assert_int_equal(stats.write_us, 4);
}

static void lines_are_what_they_must_be(void **state)
{
    static const char *const bad[] = {"", "port", "port 127.0.0.1 65616 80 tcp found",
        "port 127.0.0.1 1 -80 tcp found", "port localhost 1 80 tcp found",
        "port 127.0.0.1 1 80 sctp found", "port 127.0.0.1 1 80 tcp lost",
        "port 127.0.0.1 1 80 tcp found x", "ok"};
    sm_vm_port port;
    sm_snapshot_stats stats;
    const char *path = NULL;
    assert_true(cli_parse_port("port ::1 40613 53 udp published", &port));
    assert_true(port.host_port == 40613 && port.guest_port == 53 && port.udp && !port.found);
    assert_string_equal(port.host_ip, "::1");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (cli_parse_port(bad[i], &port))
            fail_msg("'%s' was taken", bad[i]);
    }
    assert_int_equal(cli_parse_request("snapshot a b", &path), CLI_ASKS_SNAPSHOT);
    assert_string_equal(path, "a b");
    assert_int_equal(cli_parse_request("ports ", &path), CLI_ASKS_NONSENSE);
    assert_true(cli_parse_snapshot("ok 1 2 3 4", &stats) && stats.write_us == 4);
    assert_false(cli_parse_snapshot("ok 1 2 3", &stats));
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return take_and_die(argv[1]);
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(of_two_with_one_name_the_second_has_none),
        TEST(what_is_no_name_of_a_file_is_no_name),
        TEST(what_a_killed_owner_left_goes),
        TEST(a_directory_of_others_is_not_used),
        TEST(where_names_cannot_be_is_told),
        TEST(descriptors_that_run_out_do_not_end_it),
        TEST(an_answer_is_waited_for_while_the_vm_lives),
        cmocka_unit_test(lines_are_what_they_must_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
