/*
 * The agent's state machine, with a host, commands and services of the guest that do what the input
 * says. The agent runs in this process, a turn at a time, on sockets of ours; nothing that it does
 * leaves it: commands are not started, paths name files in memory, connections to ports end here,
 * and time is what we say.
 *
 * What it sends must be frames; when all have gone, nothing may be left: no connection, command,
 * timer or descriptor.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "bounds.h"
#include "conn.h"
#include "container.h"
#include "exec.h"
#include "fuzz.h"
#include "identity.h"
#include "probe.h"
#include "proxy.h"
#include "requests.h"
#include "spawn.h"
#include "system.h"
#include "user.h"
#include "util/bytes.h"

#define MAX_PEERS    6
#define MAX_CHILDREN 8
#define MAX_LINKS    6
#define MAX_STEPS    200
#define FIRST_PID    1000000000
#define HIGH_FD      200 /* of what is kept beyond a run */
/* in the names that file.c makes; libFuzzer has files, too */
#define TEMPORARY "/.supermachine-"

struct peer {
    int fd; /* -1: none */
    uint8_t buf[2 * (SM_WIRE_HEADER + SM_WIRE_MAX_PAYLOAD)];
    size_t have;
};

struct child {
    bool alive, ended;
    int status;
    int fds[3];
};

struct link_ends {
    int host, guest; /* -1: none */
};

static struct peer peers[MAX_PEERS];
static struct child children[MAX_CHILDREN];
static struct link_ends ends[MAX_LINKS];
static int passwd = -1;              /* the user database */
static struct link_ends *connecting; /* the link whose port is being connected to */
static uint64_t now_ns;
static uint64_t knobs; /* which of the fakes fail */

static bool fails(unsigned knob)
{
    return knobs >> knob & 1;
}

/* ---- the whole machine: system.h, container.h, spawn.c ------------------------------------- */

void *system_alloc(size_t size)
{
    return calloc(1, size);
}

void system_free(void *p, size_t size)
{
    free(p);
}

int system_set_clock(uint64_t realtime_ns, const char **what)
{
    *what = "clock";
    return fails(0) ? EPERM : 0;
}

int system_add_entropy(const void *seed, size_t len, const char **what)
{
    *what = "entropy";
    fuzz_demand(len > 0);
    return 0;
}

void system_keep_journal(void)
{
}

int system_set_identity(const char *hostname, const char *machine_id, const char **what)
{
    *what = "identity";
    fuzz_demand(strlen(hostname) <= SM_WIRE_MAX_HOSTNAME);
    return fails(1) ? EPERM : 0;
}

const uint8_t *system_card_address(bool v6)
{
    static const uint8_t loopback[16] = {[15] = 1}, loopback4[4] = {127, 0, 0, 1};
    return v6 ? loopback : loopback4;
}

int system_set_network(const struct sm_wire_set_network *m, const char **what)
{
    *what = "network";
    fuzz_demand(m->mac.len == 6 && m->prefix4 <= 32 && m->prefix6 <= 128);
    return 0;
}

struct bounds bounds_here(void)
{
    return (struct bounds){.layer = 1 << 20};
}

uint64_t system_kills(void)
{
    return 0;
}

int system_set_hosts(const char **what)
{
    *what = "hosts";
    return fails(0) ? EPERM : 0;
}

int system_set_resolver(const char *text, const char **what)
{
    *what = "resolver";
    fuzz_demand(strlen(text) <= SM_WIRE_MAX_RESOLV);
    return 0;
}

int system_freeze(bool *anybody, const char **what)
{
    *what = "freeze";
    *anybody = !fails(2);
    return fails(3) ? EIO : 0;
}

int system_frozen(void)
{
    return fails(4) ? 0 : fails(5) ? -EIO : 1;
}

int system_thaw(const char **what)
{
    *what = "thaw";
    return 0;
}

/* There is no container: who is spawned has no process. */
bool container_spares(pid_t pid, int sig)
{
    return false;
}

bool container_reap(pid_t pid, int status)
{
    return false;
}

void spawn_raise_files(void)
{
}

pid_t spawn(struct spawn *s)
{
    unsigned i = 0;
    fuzz_demand(s->argv[0] && s->path && s->cwd);
    while (i < MAX_CHILDREN && children[i].alive)
        i++;
    s->kind = i == MAX_CHILDREN || fails(6) ? SM_WIRE_E_NOT_FOUND : 0;
    s->what = "command not found: ";
    if (s->kind)
        return -1;
    children[i] = (struct child){.alive = true};
    for (unsigned k = 0; k < 3; k++) {
        int from = s->tty ? s->fds[0] : s->fds[k];
        children[i].fds[k] = from >= 0 ? fcntl(from, F_DUPFD_CLOEXEC, 0) : -1;
        if (children[i].fds[k] >= 0)
            fcntl(children[i].fds[k], F_SETFL, O_NONBLOCK | (s->tty ? O_RDWR : k ? O_WRONLY : 0));
    }
    return FIRST_PID + (pid_t)i;
}

/* ---- system calls that must not leave ------------------------------------------------------ */

int __wrap_kill(pid_t pid, int sig);
pid_t __wrap_wait4(pid_t pid, int *status, int options, struct rusage *usage);
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);
int __wrap_connect(int fd, const struct sockaddr *to, socklen_t size);
int __real_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);
int __real_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);

int __wrap_kill(pid_t pid, int sig)
{
    pid_t group = pid < 0 ? -pid : pid;
    fuzz_demand(group >= FIRST_PID && group < FIRST_PID + MAX_CHILDREN && sig > 0 && sig < 65);
    struct child *c = &children[group - FIRST_PID];
    if (sig == SIGKILL && c->alive && !c->ended) {
        c->ended = true;
        c->status = SIGKILL;
    }
    return 0;
}

static void close_streams(struct child *c)
{
    for (unsigned k = 0; k < 3; k++) {
        if (c->fds[k] >= 0)
            close(c->fds[k]);
        c->fds[k] = -1;
    }
}

pid_t __wrap_wait4(pid_t pid, int *status, int options, struct rusage *usage)
{
    for (unsigned i = 0; i < MAX_CHILDREN; i++) {
        struct child *c = &children[i];
        if (!c->alive || !c->ended)
            continue;
        close_streams(c);
        *status = c->status;
        *usage = (struct rusage){.ru_maxrss = 1};
        c->alive = false;
        return FIRST_PID + (pid_t)i;
    }
    return 0;
}

/* The user database and a terminal; every other path is a file of its own, or does not exist. */
int __wrap_open(const char *path, int flags, ...)
{
    char again[32];
    if (strcmp(path, "/dev/ptmx") == 0)
        return __real_open(path, flags);
    if (strcmp(path, "uptime") == 0) {
        int fd = memfd_create("uptime", MFD_CLOEXEC), high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
        (void)!write(high, "100.00 50.00\n", 13);
        close(fd);
        return high;
    }
    if (strcmp(path, "passwd") == 0) {
        snprintf(again, sizeof(again), "/proc/self/fd/%d", passwd);
        return __real_open(again, flags);
    }
    if (fails(7)) {
        errno = ENOENT;
        return -1;
    }
    int fd = memfd_create("file", MFD_CLOEXEC);
    (void)!write(fd, path, strlen(path));
    lseek(fd, 0, SEEK_SET);
    return fd;
}

int __wrap_rename(const char *from, const char *to)
{
    if (!strstr(from, TEMPORARY))
        return __real_rename(from, to);
    fuzz_demand(strcmp(from, to) != 0);
    errno = EACCES;
    return fails(8) ? -1 : 0;
}

int __wrap_unlink(const char *path)
{
    return strstr(path, TEMPORARY) ? 0 : __real_unlink(path);
}

/* Of a port of the guest: the other end is a service that we play. */
int __wrap_socket(int domain, int type, int protocol)
{
    int pair[2];
    if (domain != AF_INET && domain != AF_INET6)
        return __real_socket(domain, type, protocol);
    fuzz_demand(connecting);
    fuzz_demand(socketpair(AF_UNIX, type, 0, pair) == 0);
    if (connecting->guest >= 0)
        close(connecting->guest);
    connecting->guest = pair[1];
    return pair[0];
}

int __wrap_connect(int fd, const struct sockaddr *to, socklen_t size)
{
    errno = fails(9) && to->sa_family == AF_INET ? ECONNREFUSED : EINPROGRESS;
    return fails(9) || fails(10) ? -1 : 0;
}

/* A turn at a time. */
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout)
{
    loop_stop();
    return __real_epoll_wait(epoll, events, max, 0);
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    return __real_poll(fds, n, 0);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
    *t = (struct timespec){
        .tv_sec = (time_t)(now_ns / 1000000000u), .tv_nsec = (long)(now_ns % 1000000000u)};
    return 0;
}

/* ---- the host ------------------------------------------------------------------------------ */

static void turn(void)
{
    fuzz_demand(loop_run() == 0);
}

/* All that the agent sends is frames. */
static void receive(struct peer *p)
{
    struct sm_wire_frame f;
    ssize_t n = recv(p->fd, p->buf + p->have, sizeof(p->buf) - p->have, MSG_DONTWAIT);
    if (n <= 0)
        return;
    p->have += (size_t)n;
    size_t at = 0;
    int rc;
    while ((rc = sm_wire_parse(p->buf + at, p->have - at, &f)) == 1)
        at += SM_WIRE_HEADER + f.len;
    fuzz_demand(rc == 0);
    memmove(p->buf, p->buf + at, p->have - at);
    p->have -= at;
}

static struct peer *connected(struct peer *p)
{
    int pair[2];
    if (p->fd >= 0)
        return p;
    fuzz_demand(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    p->fd = pair[1];
    p->have = 0;
    conn_serve(pair[0]);
    return p;
}

static void hang_up(struct peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}

static void send_frame(struct peer *p, unsigned type, const uint8_t *payload, size_t len)
{
    uint8_t header[SM_WIRE_HEADER];
    sm_wire_data_header(header, (enum sm_wire_type)type, (uint32_t)len);
    (void)!send(p->fd, header, sizeof(header), MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)!send(p->fd, payload, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* An EXEC that decodes: of its strings and flags the input has a few. */
static void send_exec(struct peer *p, struct fuzz_input *in)
{
    static const char *const argv[] = {"cmd", "arg", NULL}, *const env[] = {
                                                                "PATH=/bin", "HOME=", NULL};
    static const char *const users[] = {"", "app", "1000:staff", "7"};
    static uint8_t buf[1024];
    struct sm_wire_writer w = {.buf = buf, .cap = sizeof(buf)};
    uint64_t v = fuzz_take(in, 2);
    const struct sm_wire_exec m = {.flags = v & 0x1f,
        .user = users[v >> 5 & 3],
        .cwd = "/",
        .timeout_ms = v >> 8 & 3,
        .grace_ms = v >> 10 & 1,
        .argv = {.strv = argv},
        .env = {.strv = env}};
    sm_wire_put_exec(&w, &m);
    if (!w.failed)
        (void)!send(p->fd, buf, w.len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void peer_acts(struct fuzz_input *in)
{
    uint64_t kind = fuzz_take(in, 1);
    struct peer *p = connected(&peers[(kind >> 4) % MAX_PEERS]);
    size_t len = 0;
    unsigned type;
    const uint8_t *data;
    switch (kind % 8) {
    case 0:
        hang_up(p);
        break;
    case 1:
        shutdown(p->fd, SHUT_WR);
        break;
    case 2:
        receive(p);
        break;
    case 3:
        send_exec(p, in);
        break;
    case 4:
        len = fuzz_take(in, 1);
        data = fuzz_bytes(in, &len);
        (void)!send(p->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    default:
        type = (unsigned)fuzz_take(in, 2);
        len = kind & 8 ? fuzz_take(in, 2) : fuzz_take(in, 1);
        data = fuzz_bytes(in, &len);
        send_frame(p, type, data, len);
    }
}

/* ---- commands and services ----------------------------------------------------------------- */

static void child_acts(struct fuzz_input *in)
{
    static uint8_t buf[65536];
    uint64_t kind = fuzz_take(in, 1);
    struct child *c = &children[(kind >> 4) % MAX_CHILDREN];
    unsigned k = kind >> 2 & 3;
    if (!c->alive || c->ended)
        return;
    switch (kind % 4) {
    case 0:
        c->ended = true;
        c->status = (int)fuzz_take(in, 1) << 8;
        exec_reap();
        break;
    case 1:
        if (c->fds[k % 3] >= 0)
            close(c->fds[k % 3]);
        c->fds[k % 3] = -1;
        break;
    case 2:
        if (c->fds[0] >= 0)
            (void)!read(c->fds[0], buf, fuzz_take(in, 2));
        break;
    default:
        if (c->fds[1 + k % 2] >= 0)
            (void)!write(c->fds[1 + k % 2], buf, fuzz_take(in, 2));
    }
}

/* A client of a port of the guest, and the service there. */
static void link_acts(struct fuzz_input *in)
{
    uint64_t kind = fuzz_take(in, 1);
    struct link_ends *l = &ends[(kind >> 4) % MAX_LINKS];
    int pair[2], *fd = kind & 8 ? &l->guest : &l->host;
    static uint8_t buf[65536];
    size_t len;
    const uint8_t *data;
    connecting = l;
    if (l->host < 0) {
        fuzz_demand(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        l->host = pair[1];
        uint8_t first[SM_WIRE_PROXY_FIRST];
        sm_store_le16(first, (uint16_t)fuzz_take(in, 1));
        sm_store_le16(first + 2, kind & 1   ? SM_WIRE_PROXY_UDP
                                 : kind & 2 ? SM_WIRE_PROXY_TCP
                                            : SM_WIRE_PROXY_TCP | SM_WIRE_PROXY_SAY_OK);
        (void)!send(l->host, first, sizeof(first), MSG_NOSIGNAL);
        proxy_serve(pair[0]);
    } else if (kind % 8 == 0) {
        close(l->host);
        l->host = -1;
        turn();
    } else if (*fd >= 0 && kind % 8 == 1) {
        shutdown(*fd, SHUT_WR);
    } else if (*fd >= 0 && kind % 8 == 2) {
        (void)!recv(*fd, buf, sizeof(buf), MSG_DONTWAIT);
    } else if (*fd >= 0) {
        len = fuzz_take(in, 2);
        data = fuzz_bytes(in, &len);
        (void)!send(*fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    turn();
}

/* The image's users, as the input has them. */
static void write_users(struct fuzz_input *in)
{
    size_t len = fuzz_take(in, 1);
    const uint8_t *data = fuzz_bytes(in, &len);
    (void)!ftruncate(passwd, 0);
    (void)!pwrite(passwd, data, len, 0);
}

static void step(struct fuzz_input *in)
{
    uint64_t kind = fuzz_take(in, 1);
    switch (kind % 8) {
    case 0:
        child_acts(in);
        break;
    case 1:
        link_acts(in);
        break;
    case 2:
        now_ns += (kind >> 3) * 10000000u;
        break;
    case 3:
        knobs = fuzz_take(in, 2);
        break;
    case 4:
        if (kind & 8)
            write_users(in);
        turn();
        break;
    default:
        peer_acts(in);
    }
    if (kind & 0x80)
        turn();
}

/* ---- begin and end ------------------------------------------------------------------------- */

static void begin(void)
{
    static const char users[] = "root:x:0:0::/root:\napp:x:1000:1001::/home/app:\n";
    memset(children, 0, sizeof(children));
    probe_set_uptime("uptime");
    user_set_database("passwd", "passwd");
    identity_init(1, "box");
    now_ns = 1000000000000u;
    knobs = 0;
    passwd = memfd_create("passwd", MFD_CLOEXEC);
    fuzz_demand(pwrite(passwd, users, sizeof(users) - 1, 0) > 0);
    for (unsigned i = 0; i < MAX_PEERS; i++)
        peers[i].fd = -1;
    for (unsigned i = 0; i < MAX_LINKS; i++)
        ends[i] = (struct link_ends){-1, -1};
    fuzz_demand(requests_init() == 0);
}

/* What was left running behind by its host: taken up again, so that its end is told to somebody. */
static void attach_to_all(void)
{
    for (unsigned i = 0; exec_count() > 0 && i < MAX_STEPS; i++) {
        static uint8_t buf[64];
        struct sm_wire_writer w = {.buf = buf, .cap = sizeof(buf)};
        hang_up(&peers[0]);
        turn();
        turn();
        sm_wire_put_attach(&w, &(struct sm_wire_attach){.pid = FIRST_PID + i % MAX_CHILDREN});
        (void)connected(&peers[0]);
        (void)!send(peers[0].fd, buf, w.len, MSG_NOSIGNAL);
        for (unsigned k = 0; k < 4; k++) {
            turn();
            receive(&peers[0]);
        }
    }
}

static void hang_up_all(void)
{
    for (unsigned i = 0; i < MAX_PEERS; i++)
        hang_up(&peers[i]);
    for (unsigned i = 0; i < MAX_LINKS; i++) {
        if (ends[i].host >= 0)
            close(ends[i].host);
        if (ends[i].guest >= 0)
            close(ends[i].guest);
    }
}

/* Commands end, and so does what the agent learns of only now. */
static void run_out(void)
{
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned k = 0; k < MAX_CHILDREN; k++)
            children[k].ended = true;
        exec_reap();
        turn();
    }
}

static void end(void)
{
    hang_up_all();
    knobs = 0;
    run_out();
    attach_to_all();
    hang_up(&peers[0]);
    run_out();
    fuzz_demand(conn_count() == 0 && exec_count() == 0);
    turn();
    fuzz_demand(loop_is_idle());
    loop_exit();
    close(passwd);
}

/* Input: steps. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    int before = fuzz_next_fd();
    begin();
    for (unsigned i = 0; in.left > 0 && i < MAX_STEPS; i++)
        step(&in);
    end();
    fuzz_demand(fuzz_next_fd() == before);
    return 0;
}
