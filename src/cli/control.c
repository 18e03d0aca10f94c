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

/* Lines of a socket. */
struct lines {
    int fd;
    size_t begin, end;
    char text[MAX_LINE];
};

/* The next line, without its newline, which lives until the one after it; NULL: there is none. */
static char *read_line(struct lines *in)
{
    for (;;) {
        char *line = in->text + in->begin;
        char *newline = memchr(line, '\n', in->end - in->begin);
        if (newline) {
            *newline = '\0';
            in->begin = (size_t)(newline - in->text) + 1;
            return line;
        }
        memmove(in->text, line, in->end - in->begin);
        in->end -= in->begin;
        in->begin = 0;
        if (in->end == sizeof(in->text))
            return NULL;
        ssize_t got = recv(in->fd, in->text + in->end, sizeof(in->text) - in->end, 0);
        if (got > 0)
            in->end += (size_t)got;
        else if (got == 0 || errno != EINTR)
            return NULL;
    }
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

static void serve_snapshot(sm_vm *vm, int fd, const char *path)
{
    char answer[MAX_LINE];
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
        char line[128];
        snprintf(line, sizeof(line), "port %.45s %u %u %s %s\n", ports[i].host_ip,
            ports[i].host_port, ports[i].guest_port, ports[i].udp ? "udp" : "tcp",
            ports[i].found ? "found" : "published");
        send_line(fd, line);
    }
    send_line(fd, "ok\n");
}

static void serve(struct cli_control *control, int fd)
{
    struct lines in = {.fd = fd};
    static const char snapshot[] = "snapshot ";
    set_timeout(fd, REQUEST_TIMEOUT);
    const char *line = is_same_user(fd) ? read_line(&in) : NULL;
    if (!line)
        return;
    if (strncmp(line, snapshot, sizeof(snapshot) - 1) == 0)
        serve_snapshot(control->vm, fd, line + sizeof(snapshot) - 1);
    else if (strcmp(line, "ports") == 0)
        serve_ports(control->vm, fd);
    else
        send_line(fd, "error this supermachine does not know the request\n");
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

/* Connects and sends the request; 0, or an exit code after a message. */
static int ask(const char *vm, const char *request, struct lines *answer)
{
    struct sockaddr_un address;
    socklen_t size = address_of(vm, &address);
    auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, size))
        return cli_fail("no VM named '%s' runs for this user", vm);
    if (!is_same_user(fd))
        return cli_fail("somebody else holds the name of the VM '%s'", vm);
    set_timeout(fd, ANSWER_TIMEOUT);
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
    struct lines answer;
    char request[MAX_LINE];
    snprintf(request, sizeof(request), "snapshot %s\n", path);
    int status = ask(vm, request, &answer);
    if (status)
        return status;
    const char *line = read_line(&answer);
    close(answer.fd);
    unsigned long long v[4];
    if (!line)
        return cli_fail("the VM '%s' ended before its snapshot was written", vm);
    if (sscanf(line, "ok %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3]) != 4)
        return refused(line);
    *stats = (sm_snapshot_stats){
        .pause_us = v[0], .data_bytes = v[1], .ram_bytes = v[2], .write_us = v[3]};
    return CLI_EXIT_OK;
}

static bool parse_port(const char *line, sm_vm_port *port)
{
    char protocol[4], how[10];
    *port = (sm_vm_port){0};
    if (sscanf(line, "port %45s %hu %hu %3s %9s", port->host_ip, &port->host_port,
            &port->guest_port, protocol, how) != 5)
        return false;
    port->udp = strcmp(protocol, "udp") == 0;
    port->found = strcmp(how, "found") == 0;
    return true;
}

int cli_control_ports(const char *vm, sm_vm_port *ports, size_t *n)
{
    struct lines answer;
    int status = ask(vm, "ports\n", &answer);
    if (status)
        return status;
    const char *line = read_line(&answer);
    for (*n = 0; line && *n < SM_VM_MAX_PORTS && parse_port(line, &ports[*n]); ++*n)
        line = read_line(&answer);
    if (!line)
        status = cli_fail("the VM '%s' ended before it told its ports", vm);
    else if (strcmp(line, "ok") != 0)
        status = refused(line);
    close(answer.fd);
    return status;
}
