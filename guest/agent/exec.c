/*
 * Commands: their streams, their end, their time limit.
 *
 * stdout and stderr are pipes whose read end is blocking: it is only read when epoll or FIONREAD
 * says that something is there, and never by anybody else. They are registered with epoll while
 * there is room in the conn's output, and not otherwise (EPOLLHUP cannot be masked). stdin is a
 * non-blocking pipe; what it does not take waits in e->in, which the window keeps within one
 * buffer. A terminal is one descriptor for both directions, with a duplicate for input so that
 * epoll can have both.
 *
 * The end: the command was waited for, then each output stream is read up to what it held at that
 * moment (a descendant may keep it open for ever), then EXIT goes out.
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Stdout is read when this much room is left in the output; EXIT and WINDOW always fit beyond it.
 */
#define OUTPUT_ROOM_MIN 8192u
#define SMALL_FRAME     64u

/* Pointers to the strings of a request; used between decoding and starting, by one exec at a time.
 */
static char *argv_store[SM_WIRE_MAX_STRINGS + 1];
static char *envp_store[SM_WIRE_MAX_STRINGS + 5];

static unsigned index_of(const struct agent *a, const struct exec *e)
{
    return (unsigned)(e - a->execs);
}

static bool is_tty(const struct exec *e)
{
    return (e->flags & SM_WIRE_EXEC_TTY) != 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- the table ---------------------------------------------------------------------------- */

static struct exec *exec_get(struct agent *a)
{
    for (unsigned i = 0; i < AGENT_MAX_EXECS; i++) {
        struct exec *e = &a->execs[i];
        if (e->pid != 0)
            continue;
        *e = (struct exec){
            .generation = e->generation + 1,
            .in_fd = -1,
            .out = {{.fd = -1}, {.fd = -1}},
            .window = SM_WIRE_STDIN_WINDOW,
        };
        if (i >= a->n_execs)
            a->n_execs = i + 1;
        return e;
    }
    return NULL;
}

static void set_deadline(struct agent *a, struct exec *e, uint64_t when)
{
    a->n_timed += (when != 0) - (e->deadline_ns != 0);
    e->deadline_ns = when;
}

static void watch_stdin(struct agent *a, struct exec *e, bool on)
{
    if (e->in_on == on || e->in_fd < 0)
        return;
    int op = on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL;
    if (agent_watch(a, op, e->in_fd, EPOLLOUT, TAG_STDIN, index_of(a, e), e->generation) == 0)
        e->in_on = on;
}

/* A duplicate's registration would outlive its descriptor: taken back first. */
static void close_stdin(struct agent *a, struct exec *e)
{
    watch_stdin(a, e, false);
    close_fd(&e->in_fd);
    buffer_put(a, e->in);
    e->in = NULL;
}

static void pause_output(struct agent *a, struct out_stream *s)
{
    if (s->on)
        epoll_ctl(a->epoll, EPOLL_CTL_DEL, s->fd, NULL);
    s->on = false;
}

static void close_output(struct agent *a, struct out_stream *s)
{
    pause_output(a, s);
    close_fd(&s->fd);
}

static void close_streams(struct agent *a, struct exec *e)
{
    close_stdin(a, e);
    close_output(a, &e->out[0]);
    close_output(a, &e->out[1]);
}

static void exec_put(struct agent *a, struct exec *e)
{
    set_deadline(a, e, 0);
    close_streams(a, e);
    e->pid = 0;
}

/* ---- start -------------------------------------------------------------------------------- */

/* The strings of a list as a vector. They are the frame's, which outlives the start. */
static size_t vector(const struct sm_wire_list *list, char **store)
{
    uint32_t cursor = 0;
    size_t n = 0;
    for (const char *s; sm_wire_list_next(list, &cursor, &s); n++)
        memcpy(&store[n], &s, sizeof(s)); /* const goes, as execve wants it */
    store[n] = NULL;
    return n;
}

static const char *find_env(const char *name)
{
    size_t len = strlen(name);
    for (char **p = envp_store; *p; p++)
        if (strncmp(*p, name, len) == 0 && (*p)[len] == '=')
            return *p + len + 1;
    return NULL;
}

/* Appends NAME=value if NAME is not there; the string is built in store. */
static void default_env(size_t *n, const char *name, const char *value, char *store, size_t size)
{
    size_t len = strlen(name), value_len = strlen(value);
    if (find_env(name) || len + value_len + 2 > size)
        return;
    memcpy(store, name, len);
    store[len] = '=';
    memcpy(store + len + 1, value, value_len + 1);
    envp_store[(*n)++] = store;
    envp_store[*n] = NULL;
}

/* The child's end of a new terminal in *slave; ours in e. */
static int open_terminal(struct exec *e, const struct sm_wire_exec *m, int *slave)
{
    struct winsize size = {
        .ws_row = m->rows ? m->rows : 24, .ws_col = m->columns ? m->columns : 80};
    int unlock = 0;
    e->out[0].fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (e->out[0].fd < 0 || ioctl(e->out[0].fd, TIOCSPTLCK, &unlock) != 0 ||
        ioctl(e->out[0].fd, TIOCSWINSZ, &size) != 0)
        return -1;
    *slave = ioctl(e->out[0].fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*slave < 0)
        return -1;
    e->in_fd = fcntl(e->out[0].fd, F_DUPFD_CLOEXEC, 3);
    return e->in_fd < 0 ? -1 : 0;
}

static int open_pipes(struct exec *e, int child[3])
{
    int p[2];
    if (e->flags & SM_WIRE_EXEC_STDIN) {
        if (pipe2(p, O_CLOEXEC) != 0)
            return -1;
        child[0] = p[0];
        e->in_fd = p[1];
        if (fcntl(e->in_fd, F_SETFL, O_WRONLY | O_NONBLOCK) != 0)
            return -1;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (!(e->flags & (i == 0 ? SM_WIRE_EXEC_STDOUT : SM_WIRE_EXEC_STDERR)))
            continue;
        if (pipe2(p, O_CLOEXEC) != 0)
            return -1;
        e->out[i].fd = p[0];
        child[i + 1] = p[1];
    }
    return 0;
}

/* Who opens /dev/stdout opens the pipe (or terminal) anew, and must be its owner to be let in. */
static int own_streams(const int child[3], uid_t uid)
{
    for (unsigned i = 0; uid != 0 && i < 3; i++)
        if (child[i] >= 0 && fchown(child[i], uid, (gid_t)-1) != 0)
            return -1;
    return 0;
}

static int watch_outputs(struct agent *a, struct exec *e)
{
    for (unsigned i = 0; i < 2; i++) {
        struct out_stream *s = &e->out[i];
        if (s->fd < 0 || s->on)
            continue;
        enum tag_kind kind = i == 0 ? TAG_STDOUT : TAG_STDERR;
        if (agent_watch(a, EPOLL_CTL_ADD, s->fd, EPOLLIN, kind, index_of(a, e), e->generation) != 0)
            return -1;
        s->on = true;
    }
    return 0;
}

static void attach(struct agent *a, struct exec *e, struct conn *c)
{
    e->conn = c;
    c->exec = e;
    c->state = CONN_EXEC;
    struct sm_wire_started started = {.pid = (uint32_t)e->pid};
    conn_put(a, c, SM_WIRE_STARTED, &started);
}

void exec_start(struct agent *a, struct conn *c, const struct sm_wire_exec *m)
{
    struct user user;
    struct spawn s = {.argv = argv_store, .envp = envp_store, .cwd = m->cwd, .fds = {-1, -1, -1}};
    char home[300], host[80], term[16], path[sizeof("PATH=" PATH_DEFAULT)];
    const char *what = "";

    if (vector(&m->argv, argv_store) == 0 || argv_store[0][0] == 0) {
        conn_error(a, c, SM_WIRE_E_NOT_FOUND, 0, "no command was given", NULL);
        return;
    }
    int kind = user_find(a, m->user, &user, &what);
    if (kind != 0) {
        conn_error(a, c, (enum sm_wire_error_kind)kind, kind == SM_WIRE_E_INTERNAL ? errno : 0,
            what, " for user \"", m->user, "\"", NULL);
        return;
    }
    struct exec *e = exec_get(a);
    if (!e) {
        conn_error(a, c, SM_WIRE_E_INTERNAL, EMFILE, "too many commands are running", NULL);
        return;
    }
    size_t n = vector(&m->env, envp_store);
    default_env(&n, "PATH", PATH_DEFAULT, path, sizeof(path));
    default_env(&n, "HOME", user.home, home, sizeof(home));
    default_env(&n, "HOSTNAME", a->hostname, host, sizeof(host));
    if (m->flags & SM_WIRE_EXEC_TTY)
        default_env(&n, "TERM", "xterm", term, sizeof(term));

    e->flags = m->flags;
    s.path = find_env("PATH");
    s.user = &user;
    s.tty = is_tty(e);
    int rc = s.tty ? open_terminal(e, m, &s.fds[0]) : open_pipes(e, s.fds);
    if (rc == 0)
        rc = own_streams(s.fds, user.uid);
    e->start_ns = agent_now_ns();
    pid_t pid = -1;
    if (rc != 0) {
        s.kind = SM_WIRE_E_INTERNAL;
        s.errnum = errno;
        s.what = s.tty ? "no terminal for " : "no pipes for ";
    } else {
        pid = spawn(&s);
    }
    for (unsigned i = 0; i < 3; i++)
        close_fd(&s.fds[i]);
    if (pid < 0) {
        bool cwd = s.kind == SM_WIRE_E_BAD_CWD;
        exec_put(a, e);
        conn_error(a, c, s.kind, s.errnum, s.what, cwd ? m->cwd : argv_store[0], NULL);
        return;
    }
    e->pid = pid;
    e->grace_ms = m->grace_ms;
    if (m->timeout_ms != 0)
        set_deadline(a, e, e->start_ns + (uint64_t)m->timeout_ms * 1000000u);
    attach(a, e, c);
    watch_soon(a);
    if (e->conn && watch_outputs(a, e) != 0) { /* not if its client was lost by the answer */
        int errnum = errno;
        conn_error(
            a, c, SM_WIRE_E_INTERNAL, errnum, "cannot watch the output of ", argv_store[0], NULL);
    }
}

void exec_attach(struct agent *a, struct conn *c, const struct sm_wire_attach *m)
{
    for (unsigned i = 0; i < a->n_execs; i++) {
        struct exec *e = &a->execs[i];
        if (e->pid == 0 || (uint32_t)e->pid != m->pid || e->conn ||
            !(e->flags & SM_WIRE_EXEC_DETACH))
            continue;
        e->window = SM_WIRE_STDIN_WINDOW;
        e->grant = 0;
        attach(a, e, c); /* the output follows when this has been flushed: exec_resume */
        return;
    }
    conn_error(a, c, SM_WIRE_E_NO_PROCESS, 0, "no such detached command", NULL);
}

/* It may have lost its connection already, or be about to notice. */
void exec_keep(struct agent *a, uint32_t pid)
{
    for (unsigned i = 0; i < a->n_execs; i++) {
        struct exec *e = &a->execs[i];
        if (pid == 0 || (uint32_t)e->pid != pid)
            continue;
        e->flags |= SM_WIRE_EXEC_DETACH;
        if (e->conn)
            continue;
        pause_output(a, &e->out[0]);
        pause_output(a, &e->out[1]);
    }
}

/* ---- stdin -------------------------------------------------------------------------------- */

/* Half of the window at a time, so that grants are few. */
static void grant(struct agent *a, struct exec *e)
{
    if (e->grant < SM_WIRE_STDIN_WINDOW / 2 || !e->conn || !conn_room(a, e->conn, SMALL_FRAME))
        return;
    struct sm_wire_window window = {.bytes = e->grant};
    e->window += e->grant;
    e->grant = 0;
    conn_put(a, e->conn, SM_WIRE_WINDOW, &window);
}

/* A command that has closed its stdin takes everything: the host need not care. */
static uint32_t write_stdin(struct agent *a, struct exec *e, const uint8_t *data, uint32_t len)
{
    uint32_t done = 0;
    while (done < len && e->in_fd >= 0) {
        ssize_t n = write(e->in_fd, data + done, len - done);
        if (n >= 0)
            done += (uint32_t)n;
        else if (errno == EAGAIN)
            return done;
        else if (errno != EINTR) {
            watch_stdin(a, e, false);
            close_fd(&e->in_fd);
        }
    }
    return len;
}

static void end_stdin(struct agent *a, struct exec *e)
{
    static const uint8_t end_of_file = 4; /* ^D, what a terminal knows for it */
    if (is_tty(e))
        write_stdin(a, e, &end_of_file, 1);
    else
        close_stdin(a, e);
}

static bool stdin_frame(struct agent *a, struct exec *e, const uint8_t *data, uint32_t len)
{
    if (len > e->window || e->in_eof)
        return false;
    e->window -= len;
    uint32_t done = e->in ? 0 : write_stdin(a, e, data, len);
    if (done < len) {
        if (!e->in && !(e->in = buffer_get(a, AGENT_BUFFER_ROOM)))
            return false;
        if (buffer_tail(e->in) < len - done) {
            memmove(e->in->data, e->in->data + e->in->start, e->in->len);
            e->in->start = 0;
        }
        memcpy(e->in->data + e->in->start + e->in->len, data + done, len - done);
        e->in->len += len - done;
        watch_stdin(a, e, true);
    }
    e->grant += done;
    grant(a, e);
    return true;
}

static void stdin_writable(struct agent *a, struct exec *e)
{
    struct buffer *b = e->in;
    if (b) {
        uint32_t n = write_stdin(a, e, b->data + b->start, b->len);
        b->start += n;
        b->len -= n;
        e->grant += n;
        if (b->len > 0)
            return;
        buffer_put(a, b);
        e->in = NULL;
    }
    watch_stdin(a, e, false);
    if (e->in_eof)
        end_stdin(a, e);
    grant(a, e);
}

/* ---- signals and time --------------------------------------------------------------------- */

/* To the command's group and, with a terminal, the job in the foreground, which has a group of its
 * own. */
static void signal_group(struct exec *e, int sig)
{
    if (e->ended)
        return;
    kill(-e->pid, sig);
    pid_t foreground;
    if (is_tty(e) && e->out[0].fd >= 0 && ioctl(e->out[0].fd, TIOCGPGRP, &foreground) == 0 &&
        foreground > 1 && foreground != e->pid)
        kill(-foreground, sig);
}

void exec_timer(struct agent *a, struct exec *e, uint64_t now)
{
    bool gently = !e->timed_out && e->grace_ms > 0;
    e->timed_out = true;
    signal_group(e, gently ? SIGTERM : SIGKILL);
    set_deadline(a, e, gently ? now + (uint64_t)e->grace_ms * 1000000u : 0);
}

bool exec_frame(struct agent *a, struct exec *e, const struct sm_wire_frame *f)
{
    struct sm_wire_signal sig;
    struct sm_wire_resize size;

    switch (f->type) {
    case SM_WIRE_STDIN:
        return stdin_frame(a, e, f->payload, f->len);
    case SM_WIRE_STDIN_EOF:
        if (e->in_eof)
            return false;
        e->in_eof = true;
        if (!e->in)
            end_stdin(a, e);
        return true;
    case SM_WIRE_SIGNAL:
        if (!sm_wire_get_signal(f, &sig) || sig.signal == 0 || sig.signal > 64)
            return false;
        if (sig.group)
            signal_group(e, (int)sig.signal);
        else if (!e->ended)
            kill(e->pid, (int)sig.signal);
        return true;
    case SM_WIRE_RESIZE:
        if (!sm_wire_get_resize(f, &size))
            return false;
        if (is_tty(e) && e->out[0].fd >= 0) {
            struct winsize w = {.ws_row = size.rows, .ws_col = size.columns};
            ioctl(e->out[0].fd, TIOCSWINSZ, &w);
        }
        return true;
    default:
        return false;
    }
}

/* ---- output and end ----------------------------------------------------------------------- */

/* Reads once and queues it as one frame. False: the stream is at its end (or, a terminal: nothing
 * is there at present). `hup`: nobody writes any more. */
static bool pump(struct agent *a, struct exec *e, unsigned i, bool hup)
{
    struct out_stream *s = &e->out[i];
    struct buffer *b = conn_room(a, e->conn, OUTPUT_ROOM_MIN);
    if (!b) {
        pause_output(a, s);
        return true;
    }
    uint32_t room = buffer_tail(b) - SM_WIRE_HEADER - SMALL_FRAME;
    if (room > SM_WIRE_MAX_DATA)
        room = SM_WIRE_MAX_DATA;
    if (e->ended && room > s->drain)
        room = s->drain;
    uint8_t *frame = b->data + b->start + b->len;
    ssize_t n = read(s->fd, frame + SM_WIRE_HEADER, room);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return !e->ended;
    if (n <= 0) { /* a terminal says EIO */
        close_output(a, s);
        return false;
    }
    sm_wire_data_header(frame, i == 0 ? SM_WIRE_STDOUT : SM_WIRE_STDERR, (uint32_t)n);
    conn_commit(a, e->conn, SM_WIRE_HEADER + (uint32_t)n);
    if (e->ended)
        s->drain -= (uint32_t)n;
    if (hup && (uint32_t)n < room && !is_tty(e)) { /* that was all there ever will be */
        close_output(a, s);
        return false;
    }
    return true;
}

/* After the command's end: sends what is left to be sent, and EXIT when nothing is. */
static void finish(struct agent *a, struct exec *e)
{
    for (unsigned i = 0; i < 2; i++) {
        struct out_stream *s = &e->out[i];
        while (s->fd >= 0 && s->drain > 0) {
            if (!conn_room(a, e->conn, OUTPUT_ROOM_MIN))
                return; /* exec_resume goes on */
            if (!pump(a, e, i, false))
                s->drain = 0;
        }
    }
    if (!conn_room(a, e->conn, SMALL_FRAME))
        return;
    bool exited = WIFEXITED(e->status);
    struct sm_wire_exit m = {
        .code = exited ? WEXITSTATUS(e->status) : -1,
        .signal = exited ? 0 : (uint32_t)WTERMSIG(e->status),
        .timed_out = e->timed_out,
        .peak_rss_bytes = e->peak_rss_bytes,
        .wall_us = (e->end_ns - e->start_ns) / 1000,
    };
    conn_put(a, e->conn, SM_WIRE_EXIT, &m);
    e->conn->exec = NULL;
    conn_close_after_flush(a, e->conn);
    exec_put(a, e);
}

/* Output that nobody hears any more is taken, so that the command is not held up. */
static void discard(struct agent *a, struct out_stream *s)
{
    uint8_t unheard[4096];
    ssize_t n = read(s->fd, unheard, sizeof(unheard));
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        close_output(a, s);
}

void exec_event(struct agent *a, struct exec *e, enum tag_kind kind, uint32_t events)
{
    if (kind == TAG_STDIN)
        stdin_writable(a, e);
    else if (e->out[kind - TAG_STDOUT].fd < 0)
        return;
    else if (e->conn)
        pump(a, e, kind - TAG_STDOUT, (events & EPOLLHUP) != 0);
    else if (e->outlives)
        discard(a, &e->out[kind - TAG_STDOUT]);
}

void exec_resume(struct agent *a, struct exec *e)
{
    grant(a, e);
    if (e->ended)
        finish(a, e);
    else if (watch_outputs(a, e) != 0)
        signal_group(e, SIGKILL); /* its output cannot be had: better an end than silence */
}

void exec_conn_lost(struct agent *a, struct exec *e)
{
    e->conn = NULL;
    if (e->flags & SM_WIRE_EXEC_DETACH) {
        pause_output(a, &e->out[0]);
        pause_output(a, &e->out[1]);
        watch_stdin(a, e, false);
        buffer_put(a, e->in);
        e->in = NULL;
        return;
    }
    if (e->outlives && !e->ended && watch_outputs(a, e) == 0)
        return;
    signal_group(e, SIGKILL);
    close_streams(a, e);
    if (e->ended)
        exec_put(a, e);
}

void exec_outlive(struct agent *a, bool outlive)
{
    for (unsigned i = 0; i < a->n_execs; i++)
        if (a->execs[i].conn) /* one that has lost it already goes on unheard */
            a->execs[i].outlives = outlive;
}

static void ended(struct agent *a, struct exec *e, int status, const struct rusage *usage)
{
    set_deadline(a, e, 0);
    e->ended = true;
    e->status = status;
    e->end_ns = agent_now_ns();
    e->peak_rss_bytes = (uint64_t)usage->ru_maxrss * 1024u;
    close_stdin(a, e);
    for (unsigned i = 0; i < 2; i++) {
        struct out_stream *s = &e->out[i];
        int pending = 0;
        if (s->fd < 0)
            continue;
        pause_output(a, s);
        /* A terminal does not count what is still between its two ends; reading tells. */
        if (is_tty(e))
            s->drain = SM_WIRE_MAX_DATA;
        else if (ioctl(s->fd, FIONREAD, &pending) == 0 && pending > 0)
            s->drain = (uint32_t)pending;
    }
    if (e->conn)
        finish(a, e);
    else if (!(e->flags & SM_WIRE_EXEC_DETACH))
        exec_put(a, e);
}

/* PID 1 gets everybody's orphans; most of those who end are nobody's exec. */
void exec_reap(struct agent *a)
{
    struct rusage usage;
    int status;
    pid_t pid;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        for (unsigned i = 0; i < a->n_execs; i++) {
            if (a->execs[i].pid == pid && !a->execs[i].ended) {
                ended(a, &a->execs[i], status, &usage);
                break;
            }
        }
    }
}
