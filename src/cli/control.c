/* The way to a VM of another process. See control.h. */
#include "cli/control.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/cleanup.h"

#define MAX_LINE        (PATH_MAX + 64)
#define REQUEST_TIMEOUT 5   /* seconds for the line to come */
#define ANSWER_TIMEOUT  600 /* for a snapshot to be written */

struct cli_control {
    sm_vm *vm;
    int fd;
    pthread_t thread;
};

static socklen_t address_of(const char *vm, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "supermachine/%u/%.63s",
        (unsigned)getuid(), vm);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static bool is_same_user(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == getuid();
}

static void set_timeout(int fd, int seconds)
{
    const struct timeval t = {.tv_sec = seconds};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

/* Reads up to the newline, which is cut off. */
static bool read_line(int fd, char *line, size_t size)
{
    size_t n = 0;
    while (n < size - 1) {
        ssize_t got = recv(fd, line + n, size - 1 - n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        n += (size_t)got;
        if (line[n - 1] == '\n') {
            line[n - 1] = '\0';
            return true;
        }
    }
    return false;
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

/* ---- the side that holds the VM ------------------------------------------------------------------ */

static void serve(struct cli_control *control, int fd)
{
    char line[MAX_LINE], answer[MAX_LINE];
    static const char snapshot[] = "snapshot ";
    set_timeout(fd, REQUEST_TIMEOUT);
    if (!is_same_user(fd) || !read_line(fd, line, sizeof(line)))
        return;
    sm_error err;
    sm_snapshot_stats s;
    if (strncmp(line, snapshot, sizeof(snapshot) - 1) != 0)
        snprintf(answer, sizeof(answer), "error this supermachine does not know the request\n");
    else if (sm_vm_snapshot(control->vm, line + sizeof(snapshot) - 1, &s, &err))
        snprintf(answer, sizeof(answer), "error %.*s\n", (int)strcspn(err.message, "\n"),
            err.message);
    else
        snprintf(answer, sizeof(answer), "ok %llu %llu %llu %llu\n", (unsigned long long)s.pause_us,
            (unsigned long long)s.data_bytes, (unsigned long long)s.ram_bytes,
            (unsigned long long)s.write_us);
    send_line(fd, answer);
}

static void *serve_all(void *arg)
{
    struct cli_control *control = arg;
    for (;;) {
        int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            serve(control, fd);
            close(fd);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return NULL; /* shut down */
        }
    }
}

struct cli_control *cli_control_open(sm_vm *vm, bool *taken)
{
    *taken = false;
    struct cli_control *control = calloc(1, sizeof(*control));
    if (!control)
        return NULL;
    struct sockaddr_un address;
    socklen_t size = address_of(sm_vm_name(vm), &address);
    control->vm = vm;
    control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (control->fd >= 0 && bind(control->fd, (struct sockaddr *)&address, size)) {
        *taken = errno == EADDRINUSE;
    } else if (control->fd >= 0 && listen(control->fd, 8) == 0) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int rc = pthread_create(&control->thread, NULL, serve_all, control);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (rc == 0)
            return control;
    }
    sm_close(control->fd);
    free(control);
    return NULL;
}

void cli_control_close(struct cli_control *control)
{
    if (!control)
        return;
    shutdown(control->fd, SHUT_RDWR);
    pthread_join(control->thread, NULL);
    close(control->fd);
    free(control);
}

/* ---- the side that asks --------------------------------------------------------------------------- */

int cli_control_snapshot(const char *vm, const char *path, sm_snapshot_stats *stats)
{
    struct sockaddr_un address;
    socklen_t size = address_of(vm, &address);
    auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, size))
        return cli_fail("no VM named '%s' runs for this user", vm);
    if (!is_same_user(fd))
        return cli_fail("somebody else holds the name of the VM '%s'", vm);
    set_timeout(fd, ANSWER_TIMEOUT);
    char line[MAX_LINE];
    snprintf(line, sizeof(line), "snapshot %s\n", path);
    send_line(fd, line);
    if (!read_line(fd, line, sizeof(line)))
        return cli_fail("the VM '%s' ended before its snapshot was written", vm);
    unsigned long long v[4];
    if (sscanf(line, "ok %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3]) == 4) {
        *stats = (sm_snapshot_stats){
            .pause_us = v[0], .data_bytes = v[1], .ram_bytes = v[2], .write_us = v[3]};
        return CLI_EXIT_OK;
    }
    return cli_fail("%s", strncmp(line, "error ", 6) == 0 ? line + 6 : "the VM gave no answer");
}
