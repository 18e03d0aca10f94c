/*
 * Lists of system calls, as they are generated: what a process that was taken over tries, in either
 * stage, and what becomes of it. A refusal is told by name and ends the process. The lists are
 * those of the machine's process; the layers around them are there, too.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confined.h"
#include "sandbox/calls.h"

#define PAGE 4096

static pid_t parent;

/* ---- what is tried; each returns 0 if it was made, whatever came of it ----------------------- */

/* Libraries look for files that they can do without: they are answered that there are none. */
static int open_files(const void *arg)
{
    return !(open("/etc/passwd", O_RDONLY | O_CLOEXEC) == -1 && errno == EACCES &&
             open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC) == -1 &&
             errno == EACCES && open("/tmp/new", O_RDWR | O_CREAT | O_CLOEXEC, 0600) == -1 &&
             errno == EACCES);
}

static int make_socket(const void *arg)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) == -2;
}

static int connect_again(const void *arg)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = 80};
    return connect(STDERR_FILENO, (struct sockaddr *)&to, sizeof(to)) == -2;
}

static int send_elsewhere(const void *arg)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = 80};
    return sendto(STDERR_FILENO, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)) == -2;
}

/* One end of it would send to any path or name that a datagram socket has. */
static int make_datagram_pair(const void *arg)
{
    int ends[2];
    return socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) == -2;
}

/* Which is a datagram socket, too. */
static int make_raw_pair(const void *arg)
{
    int ends[2];
    return socketpair(AF_UNIX, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == -2;
}

static int make_pair_of_another_family(const void *arg)
{
    int ends[2];
    return socketpair(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -2;
}

static int execute(const void *arg)
{
    return execl("/bin/true", "true", NULL) == -2;
}

static int trace_parent(const void *arg)
{
    return ptrace(PTRACE_SEIZE, parent, NULL, NULL) == -2;
}

static int read_parent(const void *arg)
{
    char byte;
    struct iovec to = {&byte, 1}, from = {&parent, 1};
    return process_vm_readv(parent, &to, 1, &from, 1, 0) == -2;
}

static int signal_parent(const void *arg)
{
    return kill(parent, 0) == -2;
}

static int signal_threads_of_parent(const void *arg)
{
    return syscall(SYS_tgkill, parent, parent, 0) == -2;
}

static int become_another(const void *arg)
{
    return setuid(12345) == -2;
}

static int mount_something(const void *arg)
{
    return mount("x", "/", "tmpfs", 0, NULL) == -2;
}

static int make_namespace(const void *arg)
{
    return unshare(CLONE_NEWUSER) == -2;
}

static int clone_into_namespace(const void *arg)
{
    return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0) == -2;
}

static int fork_one(const void *arg)
{
    return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) == -2;
}

static int replace_handler(const void *arg)
{
    return signal(SIGSYS, SIG_IGN) == SIG_ERR && errno == 0;
}

static int type_into_terminal(const void *arg)
{
    return ioctl(STDIN_FILENO, TIOCSTI, "x") == -2;
}

static int make_code(const void *arg)
{
    return mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
               0) == NULL;
}

static int turn_into_code(const void *arg)
{
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? 0 : mprotect(page, PAGE, PROT_READ | PROT_EXEC) == -2;
}

static int raise_a_limit(const void *arg)
{
    return syscall(SYS_prlimit64, 0, 0, &(uint64_t[2]){1, 1}, NULL) == -2;
}

/* KVM's numbers are of one room; this is KVM_CREATE_VM, of the set-up only, on what is no KVM. */
static int make_vm(const void *arg)
{
    return ioctl(STDERR_FILENO, _IO(0xAE, 0x01), 0) == -2;
}

/* Of neither stage: KVM_SET_GUEST_DEBUG, likewise. */
static int debug_guest(const void *arg)
{
    return ioctl(STDERR_FILENO, 0x4048ae9bUL, 0) == -2;
}

static int use_io_uring(const void *arg)
{
    return syscall(SYS_io_uring_setup, 1, NULL) == -2;
}

static const struct {
    act_fn *act;
    const char *told;
} refused[] = {
    {make_socket, "socket ("},
    {connect_again, "connect ("},
    {send_elsewhere, "sendto ("},
    {make_datagram_pair, "socketpair ("},
    {make_raw_pair, "socketpair ("},
    {make_pair_of_another_family, "socketpair ("},
    {execute, "execve ("},
    {trace_parent, "ptrace ("},
    {read_parent, "process_vm_readv ("},
    {signal_parent, "kill ("},
    {signal_threads_of_parent, "tgkill ("},
    {become_another, "setuid ("},
    {mount_something, "mount ("},
    {make_namespace, "unshare ("},
    {clone_into_namespace, "clone ("},
    {fork_one, "clone ("},
    {replace_handler, "rt_sigaction ("},
    {type_into_terminal, "ioctl ("},
    {make_code, "mmap ("},
    {turn_into_code, "mprotect ("},
    {raise_a_limit, "prlimit64 ("},
    {debug_guest, "ioctl ("},
    {use_io_uring, "io_uring_setup ("},
};

static const struct sm_sandbox_spec first_stage = {
    .who = "the machine's process", .calls = &sm_calls_machine_setup};

static void assert_refused(const struct confined *end, const char *call)
{
    char sentence[128];
    snprintf(
        sentence, sizeof(sentence), "the machine's process was refused the system call %s", call);
    assert_true(sm_sandbox_was_refused(end->code, end->status));
    assert_int_equal(end->code, CLD_EXITED);
    assert_memory_equal(end->told, sentence, strlen(sentence));
    assert_non_null(strstr(end->told, "which it has no need of\n"));
}

static void what_is_not_listed_ends_the_process_in_each_stage(void **state)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct confined end = confine(&first_stage, NULL, refused[i].act, NULL);
        assert_refused(&end, refused[i].told);
        end = confine(&first_stage, &sm_calls_machine_run, refused[i].act, NULL);
        assert_refused(&end, refused[i].told);
    }
}

static void what_only_the_set_up_needs_is_refused_behind_it(void **state)
{
    struct confined end = confine(&first_stage, NULL, make_vm, NULL);
    assert_int_equal(end.result, 0);
    end = confine(&first_stage, &sm_calls_machine_run, make_vm, NULL);
    assert_refused(&end, "ioctl (");
    assert_non_null(strstr(end.told, "0xae01"));
}

/* sendmsg(2) and sendmmsg(2) with the name of another: 0 if a socket takes none. */
static int name_on(int fd)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/notify"};
    char byte = 0;
    struct iovec data = {&byte, 1};
    struct mmsghdr one = {
        {.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &data, .msg_iovlen = 1}, 0};
    if (sendmsg(fd, &one.msg_hdr, MSG_NOSIGNAL) != -1 || errno != EISCONN)
        return 1;
    return sendmmsg(fd, &one, 1, MSG_NOSIGNAL) != -1 || errno != EISCONN;
}

/* Also when the other end is shut, or gone: it stays connected to nobody else. */
static int send_to_a_name(const void *arg)
{
    static const int flags[] = {0, SOCK_CLOEXEC, SOCK_CLOEXEC | SOCK_NONBLOCK};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | flags[i], 0, ends))
            return 1;
        if (name_on(ends[0]))
            return 2;
        if (shutdown(ends[1], SHUT_RDWR) || name_on(ends[0]))
            return 3;
        close(ends[1]);
        if (name_on(ends[0]))
            return 4;
        close(ends[0]);
    }
    return 0;
}

static void a_socket_that_it_can_make_takes_no_name(void **state)
{
    struct confined end = confine(&first_stage, NULL, send_to_a_name, NULL);
    assert_string_equal(end.told, "");
    assert_int_equal(end.result, 0);
    end = confine(&first_stage, &sm_calls_machine_run, send_to_a_name, NULL);
    assert_string_equal(end.told, "");
    assert_int_equal(end.result, 0);
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *return_it(void *arg)
{
    return arg;
}

static int start_thread(const void *arg)
{
    pthread_t thread;
    int here = 0;
    void *got = NULL;
    int rc = pthread_create(&thread, NULL, return_it, &here);
    return rc ? rc : pthread_join(thread, &got) || got != &here;
}

static void threads_are_started_behind_it(void **state)
{
    struct confined end = confine(&first_stage, NULL, start_thread, NULL);
    assert_string_equal(end.told, "");
    assert_int_equal(end.result, 0);
    end = confine(&first_stage, &sm_calls_machine_run, start_thread, NULL);
    assert_string_equal(end.told, "");
    assert_int_equal(end.result, 0);
}

struct sleeper {
    const struct sm_sandbox_calls *calls;
    int wake[2];
};

static void *make_vm_when_told(void *arg)
{
    char byte;
    if (read(*(int *)arg, &byte, 1) == 1)
        make_vm(NULL);
    return NULL;
}

/* Another list, while a thread of the process is asleep, which then does what only the first list
 * has. */
static int tighten_beside_a_thread(const void *arg)
{
    struct sleeper sleeper = *(const struct sleeper *)arg;
    pthread_t thread;
    sm_error err;
    if (pthread_create(&thread, NULL, make_vm_when_told, &sleeper.wake[0]) ||
        sm_sandbox_tighten(sleeper.calls, &err))
        return 1;
    if (write(sleeper.wake[1], "x", 1) != 1)
        return 2;
    pthread_join(thread, NULL);
    return 0;
}

static void a_list_is_for_all_threads_or_for_one(void **state)
{
    struct sleeper sleeper = {.calls = &sm_calls_machine_run};
    assert_int_equal(pipe(sleeper.wake), 0);
    struct confined end = confine(&first_stage, NULL, tighten_beside_a_thread, &sleeper);
    assert_refused(&end, "ioctl (");
    sleeper.calls = &sm_calls_machine_vcpu;
    end = confine(&first_stage, NULL, tighten_beside_a_thread, &sleeper);
    assert_string_equal(end.told, "");
    assert_int_equal(end.result, 0);
    close(sleeper.wake[0]);
    close(sleeper.wake[1]);
}

/* ---- the handler ----------------------------------------------------------------------------- */

static int block_and_make_socket(const void *arg)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    return make_socket(NULL);
}

static void no_file_is_opened(void **state)
{
    struct confined end = confine(&first_stage, NULL, open_files, NULL);
    assert_int_equal(end.code, CLD_EXITED);
    assert_int_equal(end.status, 0);
    assert_string_equal(end.told, "");
}

static void who_blocks_the_signal_is_killed(void **state)
{
    struct confined end = confine(&first_stage, NULL, block_and_make_socket, NULL);
    assert_true(end.code == CLD_KILLED || end.code == CLD_DUMPED);
    assert_int_equal(end.status, SIGSYS);
    assert_true(sm_sandbox_was_refused(end.code, end.status));
    assert_string_equal(end.told, "");
}

static void an_ordinary_end_is_no_refusal(void **state)
{
    assert_false(sm_sandbox_was_refused(CLD_EXITED, 0));
    assert_false(sm_sandbox_was_refused(CLD_KILLED, SIGKILL));
    assert_false(sm_sandbox_was_refused(CLD_EXITED, SIGSYS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_listed_ends_the_process_in_each_stage),
        cmocka_unit_test(what_only_the_set_up_needs_is_refused_behind_it),
        cmocka_unit_test(a_socket_that_it_can_make_takes_no_name),
        cmocka_unit_test(threads_are_started_behind_it),
        cmocka_unit_test(a_list_is_for_all_threads_or_for_one),
        cmocka_unit_test(no_file_is_opened),
        cmocka_unit_test(who_blocks_the_signal_is_killed),
        cmocka_unit_test(an_ordinary_end_is_no_refusal),
    };
    parent = getpid();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
