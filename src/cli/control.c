/* The way to a VM of another process. See control.h. */
#include "cli/control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/control_lines.h"
#include "util/cleanup.h"
#include "util/thread.h"

#define MAX_NAME        63
#define BACKLOG         64
#define SWEEP_AT_START  16  /* names that a start looks at: with many VMs it is not to take long */
#define RETRY_MS        100 /* between two accepts that failed */
#define REQUEST_TIMEOUT 5   /* seconds */

struct cli_control {
    char name[MAX_NAME + 1];
    int fd;
    struct sm_thread thread;
    pthread_mutex_t lock; /* of what follows; held while a request is served */
    sm_vm *vm;            /* NULL: it is being started, or is over */
    bool closing;
};

/* ---- names --------------------------------------------------------------------------------- */

/* Where the names are, see control.h. */
static void path_of_names(char *path, size_t size)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char mine[64];
    snprintf(mine, sizeof(mine), "/run/user/%u", (unsigned)geteuid());
    if (runtime && *runtime == '/')
        snprintf(path, size, "%s/supermachine", runtime);
    else if (access(mine, W_OK | X_OK) == 0)
        snprintf(path, size, "%s/supermachine", mine);
    else if (geteuid() == 0)
        snprintf(path, size, "/run/supermachine");
    else
        snprintf(path, size, "/tmp/supermachine-%u", (unsigned)geteuid());
}

/* The directory of the names, which must be ours alone; -1 and errno. */
static int open_names(bool make)
{
    char path[PATH_MAX];
    path_of_names(path, sizeof(path));
    if (make && mkdir(path, 0700) && errno != EEXIST)
        return -1;
    auto_fd dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (dir < 0 || fstat(dir, &st))
        return -1;
    if (st.st_uid != geteuid() || (st.st_mode & 077)) {
        errno = EPERM;
        return -1;
    }
    return sm_steal_fd(&dir);
}

/* A directory's path may be longer than the address of a socket. */
static struct sockaddr_un address_of(int dir, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%.63s", dir, name);
    return address;
}

/* Whether somebody listens: a socket file whose owner was killed refuses. */
static bool is_alive(int dir, const char *name)
{
    const struct sockaddr_un address = address_of(dir, name);
    auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ||
           errno != ECONNREFUSED;
}

/* Removes names whose owners were killed; looks at `most` of them. With the directory locked. */
static void sweep(int dir, unsigned most)
{
    int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy < 0 ? NULL : fdopendir(copy);
    if (!list) {
        sm_close(copy);
        return;
    }
    for (const struct dirent *e; most > 0 && (e = readdir(list));) {
        if (*e->d_name == '.')
            continue;
        most--;
        if (!is_alive(dir, e->d_name))
            unlinkat(dir, e->d_name, 0);
    }
    closedir(list);
}

/* 1: it is ours, *fd listens; 0: somebody has it; -1 and errno. */
static int take_name(const char *name, int *fd)
{
    auto_fd dir = open_names(true);
    auto_fd s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (dir < 0 || s < 0 || flock(dir, LOCK_EX))
        return -1;
    sweep(dir, SWEEP_AT_START);
    const struct sockaddr_un address = address_of(dir, name);
    int rc = bind(s, (const struct sockaddr *)&address, sizeof(address));
    if (rc && errno == EADDRINUSE && !is_alive(dir, name)) {
        unlinkat(dir, name, 0);
        rc = bind(s, (const struct sockaddr *)&address, sizeof(address));
    }
    if (rc && errno == EADDRINUSE)
        return 0;
    if (rc || listen(s, BACKLOG))
        return -1;
    *fd = sm_steal_fd(&s);
    return 1;
}

static void give_name_back(const char *name)
{
    char path[PATH_MAX];
    auto_fd dir = open_names(false);
    if (dir < 0 || flock(dir, LOCK_EX))
        return;
    if (*name)
        unlinkat(dir, name, 0);
    path_of_names(path, sizeof(path));
    rmdir(path); /* if it was the last */
}

/* Of this process, for cli_control_abandon. */
static char reserved[MAX_NAME + 1];

void cli_control_abandon(void)
{
    if (*reserved)
        give_name_back(reserved);
}

/* What cannot be a file's name, and so no VM's either. */
static bool is_plain(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/') && strlen(name) <= MAX_NAME;
}

/* ---- lines --------------------------------------------------------------------------------- */

static bool is_same_user(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

/* For the request to come, and the answer to be taken: nobody else is served meanwhile. */
static void set_timeout(int fd)
{
    const struct timeval t = {.tv_sec = REQUEST_TIMEOUT};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

static void send_line(int fd, const char *line)
{
    size_t n = strlen(line);
    while (n) {
        ssize_t did = send(fd, line, n, MSG_NOSIGNAL);
        if (did < 0 && errno == EINTR)
            continue;
        if (did <= 0)
            return;
        line += did;
        n -= (size_t)did;
    }
}

/* ---- the side that holds the VM ------------------------------------------------------------ */

static void serve_snapshot(sm_vm *vm, int fd, const char *path)
{
    char answer[CLI_MAX_LINE];
    sm_error err;
    sm_snapshot_stats s;
    if (sm_vm_snapshot(vm, path, &s, &err))
        snprintf(
            answer, sizeof(answer), "error %.*s\n", (int)strcspn(err.message, "\n"), err.message);
    else
        snprintf(answer, sizeof(answer), "ok %llu %llu %llu %llu\n", (unsigned long long)s.pause_us,
            (unsigned long long)s.data_bytes, (unsigned long long)s.ram_bytes,
            (unsigned long long)s.write_us);
    send_line(fd, answer);
}

static void serve_ports(sm_vm *vm, int fd)
{
    sm_vm_port ports[SM_VM_MAX_PORTS];
    size_t n = sm_vm_ports(vm, ports, SM_VM_MAX_PORTS);
    for (size_t i = 0; i < n && i < SM_VM_MAX_PORTS; i++) {
        char line[CLI_PORT_LINE];
        cli_format_port(&ports[i], line);
        send_line(fd, line);
    }
    send_line(fd, "ok\n");
}

static void answer(struct cli_control *control, int fd, const char *line)
{
    const char *path;
    enum cli_request request = cli_parse_request(line, &path);
    pthread_mutex_lock(&control->lock);
    if (!control->vm)
        send_line(fd, "error the VM is not up yet, or over\n");
    else if (request == CLI_ASKS_SNAPSHOT)
        serve_snapshot(control->vm, fd, path);
    else if (request == CLI_ASKS_PORTS)
        serve_ports(control->vm, fd);
    else
        send_line(fd, "error this supermachine does not know the request\n");
    pthread_mutex_unlock(&control->lock);
}

static void serve(struct cli_control *control, int fd)
{
    struct cli_lines in = {.fd = fd};
    set_timeout(fd);
    const char *line = is_same_user(fd) ? cli_read_line(&in) : NULL;
    if (line)
        answer(control, fd, line);
}

static bool is_closing(struct cli_control *control)
{
    pthread_mutex_lock(&control->lock);
    bool closing = control->closing;
    pthread_mutex_unlock(&control->lock);
    return closing;
}

static void serve_all(void *arg)
{
    struct cli_control *control = arg;
    while (!is_closing(control)) {
        int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            serve(control, fd);
            close(fd);
        } else if (errno != EINTR && errno != ECONNABORTED && !is_closing(control)) {
            poll(NULL, 0, RETRY_MS); /* no descriptor is free: a connection of the VM's may end */
        }
    }
}

/* 0, or an errno value. */
static int start_thread(struct cli_control *control)
{
    return sm_thread_start(&control->thread, "control", serve_all, control, 0, NULL) ? EAGAIN : 0;
}

struct cli_control *cli_control_reserve(const char *name, bool *taken)
{
    *taken = false;
    if (!is_plain(name)) {
        errno = EINVAL;
        return NULL;
    }
    struct cli_control *control = calloc(1, sizeof(*control));
    if (!control)
        return NULL;
    snprintf(control->name, sizeof(control->name), "%s", name);
    pthread_mutex_init(&control->lock, NULL);
    int rc = -1;
    for (int i = 0; i < 3 && rc < 0; i++) { /* the last VM to end removes the directory */
        rc = take_name(name, &control->fd);
        if (rc < 0 && errno != ENOENT)
            break;
    }
    *taken = rc == 0;
    int why = rc == 1 ? start_thread(control) : errno;
    if (rc == 1 && !why) {
        memcpy(reserved, control->name, sizeof(reserved));
        return control;
    }
    if (rc == 1) {
        give_name_back(name);
        close(control->fd);
    }
    free(control);
    errno = why;
    return NULL;
}

void cli_control_attach(struct cli_control *control, sm_vm *vm)
{
    if (!control)
        return;
    pthread_mutex_lock(&control->lock);
    control->vm = vm;
    pthread_mutex_unlock(&control->lock);
}

void cli_control_close(struct cli_control *control)
{
    if (!control)
        return;
    give_name_back(control->name);
    *reserved = '\0';
    pthread_mutex_lock(&control->lock);
    control->closing = true;
    pthread_mutex_unlock(&control->lock);
    shutdown(control->fd, SHUT_RDWR);
    sm_thread_join(&control->thread);
    close(control->fd);
    pthread_mutex_destroy(&control->lock);
    free(control);
}

/* ---- the side that asks -------------------------------------------------------------------- */

/* Connects and sends the request; 0, or an exit code after a message. The answer has no limit: it
 * takes what the guest and the disk take, for which the VM's process has its own, and the
 * connection breaks when that is gone. */
static int ask(const char *vm, const char *request, struct cli_lines *answer)
{
    auto_fd dir = is_plain(vm) ? open_names(false) : -1;
    auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = address_of(dir, vm);
    if (dir >= 0 && flock(dir, LOCK_EX) == 0) {
        sweep(dir, UINT_MAX);
        flock(dir, LOCK_UN);
    }
    if (dir < 0 || fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        give_name_back(""); /* the directory, if what was swept was the last */
        return cli_fail("no VM named '%s' runs for this user", vm);
    }
    if (!is_same_user(fd))
        return cli_fail("somebody else holds the name of the VM '%s'", vm);
    send_line(fd, request);
    answer->fd = sm_steal_fd(&fd);
    answer->begin = answer->end = 0;
    return CLI_EXIT_OK;
}

static int refused(const char *line)
{
    return cli_fail("%s", strncmp(line, "error ", 6) == 0 ? line + 6 : "the VM gave no answer");
}

int cli_control_snapshot(const char *vm, const char *path, sm_snapshot_stats *stats)
{
    struct cli_lines answer;
    char request[CLI_MAX_LINE];
    snprintf(request, sizeof(request), "snapshot %s\n", path);
    int status = ask(vm, request, &answer);
    if (status)
        return status;
    const char *line = cli_read_line(&answer);
    close(answer.fd);
    if (!line)
        return cli_fail("the VM '%s' ended before its snapshot was written", vm);
    return cli_parse_snapshot(line, stats) ? CLI_EXIT_OK : refused(line);
}

int cli_control_ports(const char *vm, sm_vm_port *ports, size_t *n)
{
    struct cli_lines answer;
    int status = ask(vm, "ports\n", &answer);
    if (status)
        return status;
    const char *line = cli_read_line(&answer);
    for (*n = 0; line && *n < SM_VM_MAX_PORTS && cli_parse_port(line, &ports[*n]); ++*n)
        line = cli_read_line(&answer);
    if (!line)
        status = cli_fail("the VM '%s' ended before it told its ports", vm);
    else if (strcmp(line, "ok") != 0)
        status = refused(line);
    close(answer.fd);
    return status;
}
