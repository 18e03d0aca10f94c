/*
 * A program with the library, for what is judged of the processes that a VM has. It ends with 0
 * when all was right, else with 1 and a sentence. Arguments: what to do, and what that needs.
 *
 *   life IMAGE SNAPSHOT      a VM's whole life; says on stdout where it is: start, run, exec,
 *                            snapshot, end
 *   sigchld | closed | files | forks | waits | elsewhere IMAGE
 *                            a VM in the process of a caller that is not as others are
 *   heir IMAGE               ends itself by SIGKILL; says the pid of a child that has inherited all
 *   intrude PID... SOCKET... tries all that another user's processes and sockets must refuse
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <supermachine.h>

#include "vm_shell.h"

static void must(int ok, const char *what, const sm_error *err)
{
    if (ok)
        return;
    fprintf(stderr, "%s: %s\n", what, err ? err->message : strerror(errno));
    exit(1);
}

static void say(const char *word)
{
    puts(word);
    fflush(stdout);
}

/* ---- a VM ------------------------------------------------------------------------------------ */

static sm_store *store;
static sm_image *image;

static void open_image(const char *name)
{
    sm_error err;
    must(!sm_store_open(&store, NULL, &err), "store", &err);
    must(!sm_image_open(store, name, NULL, &image, &err), "image", &err);
}

static void close_image(void)
{
    sm_image_close(image);
    sm_store_close(store);
}

static sm_vm *start(void)
{
    sm_error err;
    sm_vm *vm;
    must(!sm_vm_start(image, NULL, &vm, &err), "start", &err);
    return vm;
}

/* The output of a script that ends with 0. */
static void shell(sm_vm *vm, const char *script, char *text, size_t size)
{
    sm_error err;
    int code = vm_shell(vm, script, SM_FD_NULL, text, size, &err);
    must(code >= 0, "shell", &err);
    must(code == 0, "exit code", NULL);
}

/* The host's loopback is denied at once. */
#define SEND_SOMETHING "wget -q -O /dev/null http://10.0.2.2/ 2>/dev/null; "

static void run_one(void)
{
    sm_error err;
    char text[64];
    sm_vm *vm = start();
    shell(vm, "echo hello", text, sizeof(text));
    must(!strcmp(text, "hello\n"), "output", NULL);
    must(!sm_vm_stop(vm, 0, &err), "stop", &err);
    sm_vm_close(vm);
}

static int live(int argc, char **argv)
{
    sm_error err;
    char text[64];
    if (argc != 2)
        return 2;
    open_image(argv[0]);
    say("start");
    sm_vm *vm = start();
    say("run");
    shell(vm, SEND_SOMETHING "echo hello", text, sizeof(text));
    must(!strcmp(text, "hello\n"), "output", NULL);
    for (int i = 0; i < 2; i++) {
        say("exec");
        shell(vm, "cat /proc/uptime", text, sizeof(text));
    }
    say("snapshot");
    must(!sm_vm_snapshot(vm, argv[1], NULL, &err), "snapshot", &err);
    say("end");
    must(!sm_vm_stop(vm, -1, &err), "stop", &err);
    sm_vm_close(vm);
    close_image();
    return 0;
}

/* ---- callers --------------------------------------------------------------------------------- */

static void ignore_children(void)
{
    signal(SIGCHLD, SIG_IGN);
    run_one();
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    /* As the caller has asked for: nobody is to be waited for. */
    must(waitpid(pid, NULL, 0) < 0 && errno == ECHILD, "a child of the caller's own", NULL);
}

static void close_standard(void)
{
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    run_one();
    for (int fd = 0; fd < 3; fd++)
        must(fcntl(fd, F_GETFD) < 0, "a standard descriptor was left open", NULL);
}

static void have_few_files(void)
{
    const struct rlimit few = {64, 64};
    must(!setrlimit(RLIMIT_NOFILE, &few), "limit", NULL);
    run_one();
}

static atomic_bool over;

static void *fork_on(void *arg)
{
    (void)arg;
    while (!atomic_load(&over)) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(7);
        int status;
        must(
            pid > 0 && waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7, "a fork", NULL);
        usleep(1000);
    }
    return NULL;
}

/* It must meet nobody but its own children, of which there is none. */
static void *wait_for_any(void *arg)
{
    (void)arg;
    while (!atomic_load(&over)) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        must(pid < 0 && errno == ECHILD, "a child that is not the caller's", NULL);
        usleep(100);
    }
    return NULL;
}

static void run_beside(void *(*fn)(void *arg))
{
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        must(!pthread_create(&threads[i], NULL, fn, NULL), "thread", NULL);
    run_one();
    atomic_store(&over, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static void fork_beside(void)
{
    run_beside(fork_on);
}

static void wait_beside(void)
{
    run_beside(wait_for_any);
}

static void go_elsewhere(void)
{
    char before[4096], after[4096];
    must(!chdir("/proc/self/fdinfo") && getcwd(before, sizeof(before)), "chdir", NULL);
    run_one();
    must(getcwd(after, sizeof(after)) && !strcmp(before, after), "the directory was changed", NULL);
}

/* What a library must leave as it is. */
struct surroundings {
    unsigned n_fds;
    struct sigaction actions[65];
    sigset_t mask;
    mode_t umask;
};

static struct surroundings look_around(void)
{
    struct surroundings s;
    memset(&s, 0, sizeof(s));
    DIR *fds = opendir("/proc/self/fd");
    while (fds && readdir(fds))
        s.n_fds++;
    if (fds)
        closedir(fds);
    for (int i = 1; i < 65; i++)
        sigaction(i, NULL, &s.actions[i]);
    pthread_sigmask(SIG_BLOCK, NULL, &s.mask);
    s.umask = umask(022);
    umask(s.umask);
    return s;
}

static void expect_unchanged(const struct surroundings *before)
{
    struct surroundings now = look_around();
    must(now.n_fds == before->n_fds, "descriptors are left", NULL);
    for (int i = 1; i < 65; i++)
        must(now.actions[i].sa_handler == before->actions[i].sa_handler, "a signal's action", NULL);
    must(!memcmp(&now.mask, &before->mask, sizeof(now.mask)), "the signal mask", NULL);
    must(now.umask == before->umask, "the umask", NULL);
}

/* The image stays open, as a caller has it that runs one VM after the other. */
static int call(void (*fn)(void), int argc, char **argv)
{
    if (argc != 1)
        return 2;
    signal(SIGUSR1, SIG_IGN);
    open_image(argv[0]);
    struct surroundings before = look_around();
    fn();
    if (fn != close_standard && fn != ignore_children)
        expect_unchanged(&before);
    close_image();
    return 0;
}

static int leave_an_heir(int argc, char **argv)
{
    if (argc != 1)
        return 2;
    open_image(argv[0]);
    start();
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGHUP, SIG_IGN);
        for (;;)
            pause();
    }
    printf("%d\n", (int)pid);
    fflush(stdout);
    kill(getpid(), SIGKILL);
    return 1;
}

/* ---- another user ---------------------------------------------------------------------------- */

static int n_entered;

static void expect_refusal(int done, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (done) {
        n_entered++;
        vprintf(format, args);
        putchar('\n');
    }
    va_end(args);
}

static void intrude_into_process(pid_t pid)
{
    static const char *const files[] = {"mem", "maps", "environ", "io", "pagemap", "stack",
        "syscall", "auxv", "smaps", "map_files", "fd", "fdinfo", "ns/user", "root/etc", "cwd/."};
    char path[64], link[64];
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char byte;
        snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, files[i]);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        /* Some can be opened by anybody, and not read. */
        expect_refusal(fd >= 0 && (read(fd, &byte, 1) > 0 || errno == EISDIR), "read %s", path);
        if (fd >= 0)
            close(fd);
    }
    static const char *const links[] = {"exe", "cwd", "root", "fd/0", "fd/3"};
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, links[i]);
        expect_refusal(readlink(path, link, sizeof(link)) > 0, "followed %s", path);
    }
    struct iovec ours = {.iov_base = link, .iov_len = 8}, theirs = {.iov_base = link, .iov_len = 8};
    expect_refusal(process_vm_readv(pid, &ours, 1, &theirs, 1, 0) > 0 || errno != EPERM,
        "read the memory of %d", (int)pid);
    expect_refusal(ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0, "traced %d", (int)pid);
    static const int signals[] = {0, SIGTERM, SIGKILL};
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        expect_refusal(kill(pid, signals[i]) == 0, "sent signal %d to %d", signals[i], (int)pid);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    for (int fd = 0; pidfd >= 0 && fd < 16; fd++)
        expect_refusal(
            syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0, "took descriptor %d of %d", fd, (int)pid);
    if (pidfd >= 0)
        close(pidfd);
}

static void intrude_into_socket(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM};
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    memcpy(addr.sun_path, path, strnlen(path, sizeof(addr.sun_path) - 1));
    if (*path == '@')
        addr.sun_path[0] = '\0';
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        char byte;
        const struct timeval patience = {.tv_sec = 5};
        int fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC, 0);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        /* An abstract one may take the connection, and must hang up when it has seen whose it
         * is. */
        bool in =
            connect(fd, (struct sockaddr *)&addr, size) == 0 &&
            (*path != '@' || (send(fd, "x\n", 2, MSG_NOSIGNAL) == 2 && recv(fd, &byte, 1, 0) > 0));
        expect_refusal(in, "connected to %s", path);
        close(fd);
    }
}

static int intrude(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (*argv[i] >= '1' && *argv[i] <= '9')
            intrude_into_process(atoi(argv[i]));
        else
            intrude_into_socket(argv[i]);
    }
    return n_entered != 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*fn)(void);
    } callers[] = {{"sigchld", ignore_children}, {"closed", close_standard},
        {"files", have_few_files}, {"forks", fork_beside}, {"waits", wait_beside},
        {"elsewhere", go_elsewhere}};
    const char *what = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof(callers) / sizeof(callers[0]); i++) {
        if (!strcmp(what, callers[i].name))
            return call(callers[i].fn, argc - 2, argv + 2);
    }
    if (!strcmp(what, "life"))
        return live(argc - 2, argv + 2);
    if (!strcmp(what, "heir"))
        return leave_an_heir(argc - 2, argv + 2);
    if (!strcmp(what, "intrude"))
        return intrude(argc - 2, argv + 2);
    return 2;
}
