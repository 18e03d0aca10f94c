/*
 * A parser of supermachine-image that was taken over: what it tries with what it has, and that the
 * program is told and goes on. Confined, so without sanitizers; what a parser may say is
 * test_builder_parsers.c's.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "builder/parser.h"
#include "util/clock.h"

#define FILE_LIMIT (1 << 20)

static struct sm_parser_message message;
static pid_t program;

/* ---- what is tried --------------------------------------------------------------------------- */

static void make_a_socket(int to)
{
    (void)socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static void execute(int socket)
{
    execl("/bin/true", "true", NULL);
}

static void trace_the_program(int socket)
{
    ptrace(PTRACE_SEIZE, program, NULL, NULL);
}

static void signal_the_program(int socket)
{
    kill(program, SIGTERM);
}

static void fork_another(int socket)
{
    /* Not libc's, which from 2.41 on blocks all signals meanwhile: then the kernel ends us. */
    syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static const struct {
    sm_parser_main *main;
    const char *told;
} refused[] = {
    {make_a_socket, "the parser was refused the system call socket ("},
    {execute, "the parser was refused the system call execve ("},
    {trace_the_program, "the parser was refused the system call ptrace ("},
    {signal_the_program, "the parser was refused the system call kill ("},
    {fork_another, "the parser was refused the system call clone ("},
};

/* Starts a parser that does that; what the program hears of it. */
static int hear(sm_parser_main *what, sm_error *err)
{
    struct sm_parser parser = {.who = "the parser", .main = what};
    assert_int_equal(sm_parser_start(&parser, FILE_LIMIT, err), 0);
    int rc = sm_parser_next(&parser, -1, &message, err);
    sm_parser_stop(&parser);
    return rc;
}

static void what_it_has_no_need_of_ends_it_and_is_told(void **state)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        sm_error err = {0};
        assert_int_equal(hear(refused[i].main, &err), -SM_ECORRUPT);
        assert_memory_equal(err.message, refused[i].told, strlen(refused[i].told));
    }
}

/* 0 to 4 are what a parser has: nothing, thrice, its socket, and where refusals are told. */
static void count_descriptors(int socket)
{
    uint64_t more = 0;
    struct stat st;
    for (int fd = 5; fd < 1024; fd++)
        more += fstat(fd, &st) == 0;
    for (int fd = 0; fd < 3; fd++)
        more += fstat(fd, &st) != 0 || !S_ISCHR(st.st_mode);
    sm_parser_send(socket, SM_PARSER_READ, &more, sizeof(more), NULL, 0);
}

static void it_has_no_descriptor_of_the_programs(void **state)
{
    sm_error err;
    assert_int_equal(hear(count_descriptors, &err), 1);
    assert_int_equal(message.type, SM_PARSER_READ);
    assert_int_equal(message.data[0], 0);
}

/* Libraries look for files that they can do without: they are answered that there are none to be
 * had. */
static void open_files(int socket)
{
    uint64_t code = open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES &&
                    open("/tmp/new", O_RDWR | O_CREAT | O_CLOEXEC, 0600) < 0 && errno == EACCES;
    sm_parser_send(socket, SM_PARSER_READ, &code, sizeof(code), NULL, 0);
}

static void it_opens_nothing(void **state)
{
    sm_error err;
    assert_int_equal(hear(open_files, &err), 1);
    assert_int_equal(message.data[0], 1);
}

/* It writes what it was given, up to the limit, and no further. */
static void grow_a_file(int socket)
{
    static struct sm_parser_message got;
    uint64_t code = 1;
    if (sm_parser_receive(socket, SM_NO_DEADLINE, &got) > 0 && got.fds[0] >= 0 &&
        pwrite(got.fds[0], "x", 1, FILE_LIMIT - 1) == 1)
        code = pwrite(got.fds[0], "x", 1, FILE_LIMIT) < 0 ? (uint64_t)errno : 2;
    sm_parser_send(socket, SM_PARSER_READ, &code, sizeof(code), NULL, 0);
}

static void it_does_not_fill_the_disk(void **state)
{
    struct sm_parser parser = {.who = "the parser", .main = grow_a_file};
    char path[] = "/tmp/parser-XXXXXX";
    sm_error err;
    int fd = mkstemp(path);
    unlink(path);
    assert_int_equal(sm_parser_start(&parser, FILE_LIMIT, &err), 0);
    assert_int_equal(sm_parser_send(parser.socket, SM_PARSER_BEGIN, NULL, 0, &fd, 1), 0);
    assert_int_equal(sm_parser_next(&parser, -1, &message, &err), 1);
    assert_int_equal(message.data[0], EFBIG);
    sm_parser_stop(&parser);
    close(fd);
}

static void die(int socket)
{
    *(volatile int *)NULL = 0;
}

static void one_that_dies_is_told_and_another_is_started(void **state)
{
    struct sm_parser parser = {.who = "the parser", .main = die};
    sm_error err;
    signal(SIGSEGV, SIG_DFL); /* cmocka's handler */
    assert_int_equal(sm_parser_start(&parser, FILE_LIMIT, &err), 0);
    int rc = sm_parser_next(&parser, -1, &message, &err);
    assert_string_equal(err.message, "the parser ended without a word (signal 11)");
    assert_int_equal(rc, -SM_EIO);
    assert_int_equal(parser.pid, 0);
    parser.main = count_descriptors;
    assert_int_equal(sm_parser_start(&parser, FILE_LIMIT, &err), 0);
    assert_int_equal(sm_parser_next(&parser, -1, &message, &err), 1);
    sm_parser_stop(&parser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_has_no_need_of_ends_it_and_is_told),
        cmocka_unit_test(it_has_no_descriptor_of_the_programs),
        cmocka_unit_test(it_opens_nothing),
        cmocka_unit_test(it_does_not_fill_the_disk),
        cmocka_unit_test(one_that_dies_is_told_and_another_is_started),
    };
    program = getpid();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
