/* An agent as a child of the test, and the host's side of its sockets. See agent_util.h. The child
 * shares one page with the test (struct fake_system): what its system was told, and what it shall
 * answer. It ends with the test, and its exit status is judged in the teardown. */
#include "agent_util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bounds.h"
#include "clone.h"
#include "conn.h"
#include "container.h"
#include "exec.h"
#include "identity.h"
#include "patience.h"
#include "pause.h"
#include "probe.h"
#include "proxy.h"
#include "requests.h"
#include "system.h"
#include "user.h"

/* ---- the agent's process ------------------------------------------------------------------ */

static struct fake_system *fake;

/* In the agent's process: what it sends between two looks for what has happened (the linker leads
 * its calls here). */
static unsigned turns, sends;
static bool here; /* the agent is in the test's own process, and takes a turn when it is told to */

int __real_epoll_wait(int epoll, struct epoll_event *events, int n, int timeout);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int n, int timeout);
ssize_t __real_send(int fd, const void *data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t size, int flags);

int __wrap_epoll_wait(int epoll, struct epoll_event *events, int n, int timeout)
{
    turns++;
    sends = 0;
    if (here)
        loop_stop();
    return __real_epoll_wait(epoll, events, n, here ? 0 : timeout);
}

ssize_t __wrap_send(int fd, const void *data, size_t size, int flags)
{
    if (turns && ++sends > fake->most_sent)
        fake->most_sent = sends;
    return __real_send(fd, data, size, flags);
}

void *system_alloc(size_t size)
{
    if (fake->allocs == 0)
        return NULL;
    fake->allocs -= fake->allocs > 0;
    return calloc(1, size);
}

void system_free(void *p, size_t size)
{
    free(p);
}

int system_set_clock(uint64_t realtime_ns, const char **what)
{
    *what = "clock";
    fake->calls++;
    fake->realtime_ns = realtime_ns;
    return fake->fail_clock;
}

int system_add_entropy(const void *seed, size_t len, const char **what)
{
    *what = "entropy";
    fake->calls++;
    fake->seed_len = (uint32_t)len;
    return fake->fail_entropy;
}

void system_keep_journal(void)
{
}

int system_set_identity(const char *hostname, const char *machine_id, const char **what)
{
    *what = "identity";
    fake->calls++;
    snprintf(fake->hostname, sizeof(fake->hostname), "%s", hostname);
    snprintf(fake->machine_id, sizeof(fake->machine_id), "%s", machine_id);
    return fake->fail_identity;
}

/* Stands for the card's: this machine's, and not that of its loopback services. */
const uint8_t *system_card_address(bool v6)
{
    static const uint8_t address[4] = {127, 7, 7, 7};
    return v6 ? NULL : address;
}

int system_set_network(const struct sm_wire_set_network *m, const char **what)
{
    *what = "network";
    fake->calls++;
    fake->mtu = m->mtu;
    return fake->fail_network;
}

struct bounds bounds_here(void)
{
    return (struct bounds){.layer = 1 << 20};
}

uint64_t system_kills(void)
{
    return fake->kills;
}

int system_set_hosts(const char **what)
{
    *what = "hosts";
    fake->hosts++;
    return 0;
}

int system_set_resolver(const char *text, const char **what)
{
    *what = "resolver";
    fake->calls++;
    snprintf(fake->resolver, sizeof(fake->resolver), "%s", text);
    return fake->fail_network;
}

int system_freeze(bool *anybody, const char **what)
{
    *what = "freeze";
    *anybody = !fake->nobody;
    fake->freezes++;
    return fake->fail_freeze;
}

int system_frozen(void)
{
    if (++fake->looks == 2)
        usleep(1000 * fake->stall_ms);
    if (fake->looks == fake->looks_to_freeze)
        return 1;
    return fake->frozen;
}

int system_thaw(const char **what)
{
    *what = "thaw";
    fake->thaws++;
    return 0;
}

/* ---- a container that is none: its processes are children like any other -------------------- */

static bool taken;

bool container_is_taken(void)
{
    return taken;
}

static pid_t start(int (*fn)(void *arg), void *arg)
{
    static _Alignas(16) uint8_t stack[64 * 1024];
    const struct clone_child child = {
        .flags = CLONE_VFORK, /* the agent is not PID 1 here: it would share an OOM score */
        .stack = stack,
        .stack_size = sizeof(stack),
        .cgroup = -1,
        .fn = fn,
        .arg = arg,
    };
    return clone_child(&child);
}

pid_t container_first(
    int (*fn)(void *arg), void *arg, const struct sm_wire_process *asked, const char **what)
{
    *what = "first";
    taken = true;
    return start(fn, arg);
}

pid_t container_join(
    int (*fn)(void *arg), void *arg, const struct sm_wire_process *asked, const char **what)
{
    *what = "join";
    return start(fn, arg);
}

void container_exec_init(pid_t command)
{
}

void container_keep_init(void)
{
}

int container_await(int *running, const char **what)
{
    return 0;
}

bool container_has_ended(void)
{
    return false;
}

bool container_spares(pid_t pid, int sig)
{
    return false;
}

bool container_reap(pid_t pid, int status)
{
    return false;
}

static void serve(const struct agent_test *t, int listener, int proxy)
{
    char passwd[96], group[96], uptime[96];
    snprintf(passwd, sizeof(passwd), "%s/passwd", t->dir);
    snprintf(group, sizeof(group), "%s/group", t->dir);
    snprintf(uptime, sizeof(uptime), "%s/uptime", t->dir);
    probe_set_uptime(uptime);
    user_set_database(passwd, group);
    identity_init(0x1234567890abcdefu, "box");
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    /* What the test inherited must not look like a leak of the agent's. */
    dup2(fcntl(proxy, F_DUPFD, 5), 4);
    dup2(fcntl(listener, F_DUPFD, 5), 3);
    listener = 3;
    proxy = 4;
    close_range(5, ~0u, 0);
    fcntl(listener, F_SETFD, FD_CLOEXEC);
    fcntl(proxy, F_SETFD, FD_CLOEXEC);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* as PID 1 would get orphans */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (requests_init() != 0 || conn_listen(listener) != 0 || proxy_listen(proxy) != 0 ||
        loop_run() != 0)
        _exit(99);
    _exit(0);
}

static void write_text(const struct agent_test *t, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", t->dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int listen_at(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(addr.sun_path, path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 64), 0);
    return fd;
}

int agent_setup(void **state)
{
    struct agent_test *t = calloc(1, sizeof(*t));
    strcpy(t->dir, "/tmp/sm-agent-XXXXXX");
    assert_non_null(mkdtemp(t->dir));
    assert_int_equal(chmod(t->dir, 0755), 0);
    snprintf(t->socket, sizeof(t->socket), "%s/socket", t->dir);
    write_text(t, "passwd",
        "root:x:0:0:root:/root:/bin/sh\n"
        "broken line\n"
        "app:x:1000:1001:App:/home/app:/bin/sh\n"
        "5:x:77:78::/home/five:/bin/sh\n"
        "last:x:1002:1002::/home/last:/bin/sh"); /* no newline at the end */
    write_text(t, "group",
        "root:x:0:\nstaff:x:50:app,last\nwheel:x:10:apple,app\napp:x:1001:\nlast:x:1002:");
    t->system =
        mmap(NULL, sizeof(*t->system), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(t->system, MAP_FAILED);
    fake = t->system;
    fake->allocs = -1;

    snprintf(t->proxy, sizeof(t->proxy), "%s/proxy", t->dir);
    int listener = listen_at(t->socket), proxy = listen_at(t->proxy);
    t->pid = fork();
    if (t->pid == 0)
        serve(t, listener, proxy);
    close(listener);
    close(proxy);
    *state = t;
    return 0;
}

/* A healthy agent powers off when it is told to: a sanitizer's complaint would show as its status.
 */
int agent_teardown(void **state)
{
    struct agent_test *t = *state;
    char command[128];
    int status = -1;
    if (waitpid(t->pid, &status, WNOHANG) == 0) {
        struct peer *p = peer_open(t);
        peer_put(p, SM_WIRE_POWER_OFF, NULL);
        peer_expect(p, SM_WIRE_OK, NULL);
        peer_close(p);
        assert_int_equal(waitpid(t->pid, &status, 0), t->pid);
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    snprintf(command, sizeof(command), "rm -rf %s", t->dir);
    assert_int_equal(system(command), 0);
    munmap(t->system, sizeof(*t->system));
    free(t);
    return 0;
}

/* ---- an agent in this process ------------------------------------------------------------- */

int agent_here(void **state)
{
    static struct fake_system system;
    system = (struct fake_system){.allocs = -1};
    fake = &system;
    here = true;
    identity_init(1, "box");
    assert_int_equal(requests_init(), 0);
    *state = fake;
    return 0;
}

int agent_here_ends(void **state)
{
    agent_turns();
    assert_int_equal(conn_count(), 0);
    assert_int_equal(exec_count(), 0);
    assert_true(loop_is_idle());
    loop_exit();
    pause_end(&(const char *){NULL}); /* what a test froze is not the next one's */
    return 0;
}

void agent_turns(void)
{
    for (int i = 0; i < 20; i++)
        assert_int_equal(loop_run(), 0);
}

struct peer *peer_before(int *accepted)
{
    struct peer *p = calloc(1, sizeof(*p));
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    p->fd = pair[0];
    *accepted = pair[1];
    return p;
}

struct peer *peer_here(void)
{
    int accepted;
    struct peer *p = peer_before(&accepted);
    conn_serve(accepted);
    return p;
}

/* ---- the host's side ---------------------------------------------------------------------- */

static int connect_to(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(addr.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

int proxy_open(struct agent_test *t)
{
    int fd = connect_to(t->proxy);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    return fd;
}

struct peer *peer_open(struct agent_test *t)
{
    struct peer *p = calloc(1, sizeof(*p));
    p->fd = connect_to(t->socket);
    return p;
}

void peer_close(struct peer *p)
{
    close(p->fd);
    free(p);
}

void peer_send(struct peer *p, const void *data, size_t len)
{
    assert_int_equal(send(p->fd, data, len, MSG_NOSIGNAL), len);
}

void peer_put(struct peer *p, enum sm_wire_type type, const void *m)
{
    static uint8_t buf[SM_WIRE_HEADER + SM_WIRE_MAX_PAYLOAD];
    struct sm_wire_writer w = {.buf = buf, .cap = sizeof(buf)};
    sm_wire_put(&w, type, m);
    assert_false(w.failed);
    peer_send(p, buf, w.len);
}

bool peer_next(struct peer *p, struct sm_wire_frame *f)
{
    for (;;) {
        int rc = sm_wire_parse(p->buf + p->used, p->have - p->used, f);
        assert_int_not_equal(rc, -1);
        if (rc == 1) {
            p->used += SM_WIRE_HEADER + f->len;
            return true;
        }
        memmove(p->buf, p->buf + p->used, p->have - p->used);
        p->have -= p->used;
        p->used = 0;
        struct pollfd pfd = {.fd = p->fd, .events = POLLIN};
        assert_int_equal(poll(&pfd, 1, PATIENCE_MS), 1);
        ssize_t n = recv(p->fd, p->buf + p->have, sizeof(p->buf) - p->have, 0);
        if (n <= 0) {
            assert_int_equal(p->have, 0); /* a frame must not end in the middle */
            return false;
        }
        p->have += (size_t)n;
    }
}

void peer_expect(struct peer *p, enum sm_wire_type type, void *m)
{
    struct sm_wire_frame f;
    assert_true(peer_next(p, &f));
    if (f.type == SM_WIRE_ERROR && type != SM_WIRE_ERROR) {
        struct sm_wire_error e;
        assert_true(sm_wire_get_error(&f, &e));
        fail_msg("expected %s, got error %u: %s (errno %d)", sm_wire_type_name((uint16_t)type),
            e.kind, e.message, e.errnum);
    }
    assert_string_equal(sm_wire_type_name(f.type), sm_wire_type_name((uint16_t)type));
    if (m)
        assert_true(sm_wire_get(&f, type, m));
}

void peer_expect_end(struct peer *p)
{
    struct sm_wire_frame f;
    assert_false(peer_next(p, &f));
}

void peer_expect_error(struct peer *p, enum sm_wire_error_kind kind)
{
    struct sm_wire_error e;
    peer_expect(p, SM_WIRE_ERROR, &e);
    assert_int_equal(e.kind, kind);
    assert_true(strlen(e.message) > 0);
    peer_expect_end(p);
}

/* ---- commands ----------------------------------------------------------------------------- */

static void append(char **to, size_t *len, const struct sm_wire_frame *f)
{
    *to = realloc(*to, *len + f->len + 1);
    memcpy(*to + *len, f->payload, f->len);
    *len += f->len;
    (*to)[*len] = 0;
}

/* Sends what the window allows. */
static void feed(struct peer *p, struct run *r, size_t *sent, uint64_t *window, bool *eof)
{
    while (*sent<r->input_len && * window> 0) {
        size_t n = r->input_len - *sent;
        n = n > *window ? *window : n;
        n = n > SM_WIRE_MAX_DATA ? SM_WIRE_MAX_DATA : n;
        uint8_t header[SM_WIRE_HEADER];
        sm_wire_data_header(header, SM_WIRE_STDIN, (uint32_t)n);
        peer_send(p, header, sizeof(header));
        peer_send(p, (const uint8_t *)r->input + *sent, n);
        *sent += n;
        *window -= n;
    }
    if (r->input && *sent == r->input_len && !*eof) {
        *eof = true;
        peer_put(p, SM_WIRE_STDIN_EOF, NULL);
        if (r->sent_all)
            close(open(r->sent_all, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    }
}

void run_streams(struct peer *p, struct run *r)
{
    r->out = calloc(1, 1);
    r->err = calloc(1, 1);
    peer_expect(p, SM_WIRE_STARTED, NULL);
    size_t sent = 0;
    uint64_t window = SM_WIRE_STDIN_WINDOW;
    bool eof = false;
    for (;;) {
        feed(p, r, &sent, &window, &eof);
        struct sm_wire_frame f;
        assert_true(peer_next(p, &f));
        if (f.type == SM_WIRE_STDOUT) {
            append(&r->out, &r->out_len, &f);
        } else if (f.type == SM_WIRE_STDERR) {
            append(&r->err, &r->err_len, &f);
        } else if (f.type == SM_WIRE_WINDOW) {
            struct sm_wire_window w;
            assert_true(sm_wire_get_window(&f, &w));
            window += w.bytes;
            assert_true(window <= SM_WIRE_STDIN_WINDOW);
        } else {
            assert_true(sm_wire_get_exit(&f, &r->exit));
            break;
        }
    }
    peer_expect_end(p);
}

void run(struct agent_test *t, struct run *r)
{
    struct peer *p = peer_open(t);
    if (r->exec.flags == 0)
        r->exec.flags = EXEC_STREAMS;
    peer_put(p, SM_WIRE_EXEC, &r->exec);
    run_streams(p, r);
    peer_close(p);
}

void run_free(struct run *r)
{
    free(r->out);
    free(r->err);
}
