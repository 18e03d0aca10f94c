/*
 * Commands: their streams, their end, their time limit. (How one is started: launch.c.)
 *
 * An exec is a command that was started and has not been reported. It belongs to the conn that it
 * is the user of, or to none (detached, or lost by a restore). Execs live in a table.
 *
 * stdout and stderr are only read when epoll or FIONREAD says that something is there, and never
 * by anybody else. They are registered while there is room in the conn's output, and not otherwise
 * (an end of file cannot be masked). What stdin does not take waits in e->in, which the window
 * keeps within one buffer.
 *
 * The end: the command was waited for, then each output stream is read up to what it held at that
 * moment (a descendant may keep it open for ever), then EXIT goes out.
 */
#include "exec.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "container.h"
#include "launch.h"
#include "system.h"

#define EXEC_MAX 512

/* Stdout is read when this much room is left in the output; EXIT and WINDOW fit beyond it. */
#define OUTPUT_ROOM_MIN 8192u
#define SMALL_FRAME     64u

struct output {
    struct source source;
    uint32_t drain; /* after the command's end: bytes that are still to be sent */
};

struct exec {
    pid_t pid; /* 0: free slot */
    uint32_t generation;
    uint32_t flags;
    struct conn *conn; /* NULL: detached, or lost by a restore */

    struct source input;
    bool in_eof;
    struct buffer *in;      /* stdin that the command has not taken */
    uint32_t window, grant; /* stdin: bytes the host may send; taken and not yet granted again */

    struct output out[2]; /* stdout (or the terminal), stderr */
    int terminal;         /* the command's end of it: held, so that ours does not see an end */

    bool outlives; /* its connection: it was there at a FREEZE that no THAW has followed */
    bool ended, timed_out, out_of_memory;
    bool killed; /* the host has sent SIGKILL */
    int spared;  /* process 1 was killed because it was spared this signal; 0: it was not */
    int status;
    uint64_t peak_rss_bytes;
    uint64_t start_ns, end_ns;
    struct timer timer; /* the next step of the time limit */
    uint32_t grace_ms;
    uint64_t kills; /* system_kills when it began */
};

/* What the user of a conn has there. */
struct attached {
    struct exec *exec;
};
_Static_assert(sizeof(struct attached) <= CONN_OWN_BYTES, "fits into a conn");

static struct exec execs[EXEC_MAX];
static unsigned n_execs; /* slots that were ever used */
static uint64_t kills;   /* system_kills, the last time that somebody asked */
static bool begun;       /* a command was, at any time */

static void out_of_time(struct timer *t, uint64_t now, uint64_t late_ns);
static void exec_ready(unsigned index, uint32_t generation, uint32_t events);

static bool is_tty(const struct exec *e)
{
    return (e->flags & SM_WIRE_EXEC_TTY) != 0;
}

/* ---- the table ---------------------------------------------------------------------------- */

static struct exec *exec_get(void)
{
    for (unsigned i = 0; i < EXEC_MAX; i++) {
        struct exec *e = &execs[i];
        if (e->pid != 0)
            continue;
        *e = (struct exec){
            .generation = e->generation + 1,
            .input.fd = -1,
            .out = {{.source.fd = -1}, {.source.fd = -1}},
            .terminal = -1,
            .window = SM_WIRE_STDIN_WINDOW,
            .timer.fire = out_of_time,
        };
        if (i >= n_execs)
            n_execs = i + 1;
        return e;
    }
    return NULL;
}

static void watch_stdin(struct exec *e, bool on)
{
    if (e->input.fd >= 0)
        (void)loop_ask(&e->input, on ? LOOP_OUT : 0);
}

static int watch_output(struct output *s, bool on)
{
    return s->source.fd < 0 ? 0 : loop_ask(&s->source, on ? LOOP_IN : 0);
}

static int watch_outputs(struct exec *e)
{
    return watch_output(&e->out[0], true) != 0 || watch_output(&e->out[1], true) != 0 ? -1 : 0;
}

static void pause_outputs(struct exec *e)
{
    (void)watch_output(&e->out[0], false);
    (void)watch_output(&e->out[1], false);
}

/* The close of a pipe takes its registration back. That of a terminal would live on with the other
 * of the two descriptors. */
static void close_source(const struct exec *e, struct source *s)
{
    if (is_tty(e))
        (void)loop_ask(s, 0);
    if (s->fd >= 0)
        close(s->fd);
    *s = (struct source){.fd = -1};
}

static void close_stdin(struct exec *e)
{
    close_source(e, &e->input);
    buffer_put(e->in);
    e->in = NULL;
}

static void close_streams(struct exec *e)
{
    close_stdin(e);
    close_source(e, &e->out[0].source);
    close_source(e, &e->out[1].source);
    if (e->terminal >= 0)
        close(e->terminal);
    e->terminal = -1;
}

static void exec_put(struct exec *e)
{
    timer_set(&e->timer, 0);
    close_streams(e);
    e->pid = 0;
}

unsigned exec_count(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < n_execs; i++)
        n += execs[i].pid != 0;
    return n;
}

/* Its connection is gone by definition, though we may not have been told: the frame behind this one
 * may be the ATTACH. */
void exec_keep(uint32_t pid)
{
    for (unsigned i = 0; i < n_execs; i++) {
        struct exec *e = &execs[i];
        if (pid == 0 || (uint32_t)e->pid != pid)
            continue;
        e->flags |= SM_WIRE_EXEC_DETACH;
        if (e->conn)
            conn_end(e->conn);
        else
            pause_outputs(e);
    }
}

void exec_outlive(bool outlive)
{
    for (unsigned i = 0; i < n_execs; i++)
        if (execs[i].conn) /* one that has lost it already goes on unheard */
            execs[i].outlives = outlive;
}

/* ---- start -------------------------------------------------------------------------------- */

static const struct conn_user attached;

/* An event is for a stream of an exec: it has a number for each. */
enum stream { OUT, ERR, IN, STREAMS };

static struct source source(const struct exec *e, int fd, enum stream stream)
{
    if (fd < 0)
        return (struct source){.fd = -1};
    return loop_source(fd, exec_ready, (unsigned)(e - execs) * STREAMS + stream, e->generation);
}

static void attach(struct exec *e, struct conn *c)
{
    e->conn = c;
    conn_take(c, &attached);
    *(struct attached *)conn_own(c) = (struct attached){e};
    struct sm_wire_started started = {.pid = (uint32_t)e->pid};
    conn_put(c, SM_WIRE_STARTED, &started);
}

bool exec_start(struct conn *c, const struct sm_wire_exec *m)
{
    struct launched l;
    struct exec *e = exec_get();
    if (!e) {
        conn_error(c, SM_WIRE_E_INTERNAL, EMFILE, "too many commands are running", NULL);
        return false;
    }
    if (!launch(c, m, &l))
        return false;
    e->pid = l.pid;
    e->flags = m->flags;
    /* The first one begins where nothing was killed: it need not ask. */
    e->kills = kills = begun ? system_kills() : 0;
    begun = true;
    e->input = source(e, l.in, IN);
    e->out[0].source = source(e, l.out[0], OUT);
    e->out[1].source = source(e, l.out[1], ERR);
    e->terminal = l.terminal;
    e->start_ns = l.start_ns;
    e->grace_ms = m->grace_ms;
    if (m->timeout_ms != 0)
        timer_set(&e->timer, e->start_ns + (uint64_t)m->timeout_ms * 1000000u);
    attach(e, c);
    if (e->conn && watch_outputs(e) != 0) { /* not if its client was lost by the answer */
        int errnum = errno;
        const char *name = "";
        sm_wire_list_next(&m->argv, &(uint32_t){0}, &name);
        conn_error(c, SM_WIRE_E_INTERNAL, errnum, "cannot watch the output of ", name, NULL);
    }
    return true;
}

void exec_attach(struct conn *c, const struct sm_wire_attach *m)
{
    for (unsigned i = 0; i < n_execs; i++) {
        struct exec *e = &execs[i];
        if (e->pid == 0 || (uint32_t)e->pid != m->pid || e->conn ||
            !(e->flags & SM_WIRE_EXEC_DETACH))
            continue;
        e->window = SM_WIRE_STDIN_WINDOW;
        e->grant = 0;
        e->in_eof = e->in_eof && !is_tty(e); /* of who was there before */
        watch_stdin(e, false);
        buffer_put(e->in);
        e->in = NULL;
        attach(e, c); /* the output follows when this has been flushed: resume */
        return;
    }
    conn_error(c, SM_WIRE_E_NO_PROCESS, 0, "no such detached command", NULL);
}

/* ---- stdin -------------------------------------------------------------------------------- */

/* Half of the window at a time, so that grants are few. */
static void grant(struct exec *e)
{
    if (e->grant < SM_WIRE_STDIN_WINDOW / 2 || !e->conn || !conn_room(e->conn, SMALL_FRAME))
        return;
    struct sm_wire_window window = {.bytes = e->grant};
    e->window += e->grant;
    e->grant = 0;
    conn_put(e->conn, SM_WIRE_WINDOW, &window);
}

/* A command that has closed its stdin takes everything: the host need not care. */
static uint32_t write_stdin(struct exec *e, const uint8_t *data, uint32_t len)
{
    uint32_t done = 0;
    while (done < len && e->input.fd >= 0) {
        ssize_t n = write(e->input.fd, data + done, len - done);
        if (n >= 0)
            done += (uint32_t)n;
        else if (errno == EAGAIN)
            return done;
        else if (errno != EINTR)
            close_source(e, &e->input);
    }
    return len;
}

static void end_stdin(struct exec *e)
{
    static const uint8_t end_of_file = 4; /* ^D, what a terminal knows for it */
    if (is_tty(e))
        write_stdin(e, &end_of_file, 1);
    else
        close_stdin(e);
}

static bool stdin_ends(struct exec *e)
{
    if (e->in_eof)
        return false;
    e->in_eof = true;
    if (!e->in)
        end_stdin(e);
    return true;
}

static bool stdin_frame(struct exec *e, const uint8_t *data, uint32_t len)
{
    if (len > e->window || e->in_eof)
        return false;
    e->window -= len;
    uint32_t done = e->in ? 0 : write_stdin(e, data, len);
    if (done < len) {
        if (!e->in && !(e->in = buffer_get(BUFFER_ROOM)))
            return false;
        if (buffer_tail(e->in) < len - done) {
            memmove(e->in->data, e->in->data + e->in->start, e->in->len);
            e->in->start = 0;
        }
        memcpy(e->in->data + e->in->start + e->in->len, data + done, len - done);
        e->in->len += len - done;
        watch_stdin(e, true);
    }
    e->grant += done;
    grant(e);
    return true;
}

static void stdin_writable(struct exec *e)
{
    struct buffer *b = e->in;
    if (b) {
        uint32_t n = write_stdin(e, b->data + b->start, b->len);
        b->start += n;
        b->len -= n;
        e->grant += n;
        if (b->len > 0)
            return;
        buffer_put(b);
        e->in = NULL;
    }
    watch_stdin(e, false);
    if (e->in_eof)
        end_stdin(e);
    grant(e);
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
    if (is_tty(e) && e->out[0].source.fd >= 0 &&
        ioctl(e->out[0].source.fd, TIOCGPGRP, &foreground) == 0 && foreground > 1 &&
        foreground != e->pid)
        kill(-foreground, sig);
}

static void out_of_time(struct timer *t, uint64_t now, uint64_t late_ns)
{
    struct exec *e = OWNER(t, struct exec, timer);
    bool gently = !e->timed_out && e->grace_ms > 0;
    e->timed_out = true;
    signal_group(e, gently ? SIGTERM : SIGKILL);
    timer_set(t, gently ? now + (uint64_t)e->grace_ms * 1000000u : 0);
}

/* Its terminal is gone, or the reader of its output: that ends who does nothing about it, also
 * process 1, which the kernel lets be. */
static void hang_up(struct exec *e, int sig)
{
    signal_group(e, sig);
    if (e->ended || !container_spares(e->pid, sig))
        return;
    e->spared = sig;
    kill(e->pid, SIGKILL);
}

static bool signal_frame(struct exec *e, const struct sm_wire_frame *f)
{
    struct sm_wire_signal m;
    if (!sm_wire_get_signal(f, &m) || m.signal == 0 || m.signal > 64)
        return false;
    e->killed = e->killed || m.signal == SIGKILL;
    if (m.group)
        hang_up(e, (int)m.signal);
    else if (!e->ended)
        kill(e->pid, (int)m.signal);
    return true;
}

static bool resize_frame(struct exec *e, const struct sm_wire_frame *f)
{
    struct sm_wire_resize m;
    if (!sm_wire_get_resize(f, &m))
        return false;
    if (is_tty(e) && e->out[0].source.fd >= 0) {
        struct winsize w = {.ws_row = m.rows, .ws_col = m.columns};
        ioctl(e->out[0].source.fd, TIOCSWINSZ, &w);
    }
    return true;
}

/* What came behind EXEC. */
static bool frame(struct conn *c, const struct sm_wire_frame *f)
{
    struct exec *e = ((struct attached *)conn_own(c))->exec;
    switch (f->type) {
    case SM_WIRE_STDIN:
        return stdin_frame(e, f->payload, f->len);
    case SM_WIRE_STDIN_EOF:
        return stdin_ends(e);
    case SM_WIRE_SIGNAL:
        return signal_frame(e, f);
    case SM_WIRE_RESIZE:
        return resize_frame(e, f);
    default:
        return false;
    }
}

/* ---- output and end ----------------------------------------------------------------------- */

/* Reads once and queues it as one frame. False: the stream is at its end (or, a terminal: nothing
 * is there at present). `hup`: nobody writes any more; what is there is to be read all the same,
 * the kernel may have looked for it before the last writer wrote and closed. */
static bool pump(struct exec *e, unsigned i, bool hup)
{
    struct output *s = &e->out[i];
    struct buffer *b = conn_room(e->conn, OUTPUT_ROOM_MIN);
    if (!b) {
        (void)watch_output(s, false);
        return true;
    }
    uint32_t room = buffer_tail(b) - SM_WIRE_HEADER - SMALL_FRAME;
    if (room > SM_WIRE_MAX_DATA)
        room = SM_WIRE_MAX_DATA;
    if (e->ended && room > s->drain)
        room = s->drain;
    uint8_t *frame = b->data + b->start + b->len;
    ssize_t n = read(s->source.fd, frame + SM_WIRE_HEADER, room);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return !e->ended;
    if (n <= 0) {
        close_source(e, &s->source);
        return false;
    }
    sm_wire_data_header(frame, i == 0 ? SM_WIRE_STDOUT : SM_WIRE_STDERR, (uint32_t)n);
    conn_commit(e->conn, SM_WIRE_HEADER + (uint32_t)n);
    if (e->ended)
        s->drain -= (uint32_t)n;
    if (hup && (uint32_t)n < room && !is_tty(e)) { /* that was all there ever will be */
        close_source(e, &s->source);
        return false;
    }
    return true;
}

/* After the command's end: sends what is left to be sent, and EXIT when nothing is. */
static void finish(struct exec *e)
{
    for (unsigned i = 0; i < 2; i++) {
        struct output *s = &e->out[i];
        while (s->source.fd >= 0 && s->drain > 0) {
            if (!conn_room(e->conn, OUTPUT_ROOM_MIN))
                return; /* resume goes on */
            if (!pump(e, i, false))
                s->drain = 0;
        }
    }
    if (!conn_room(e->conn, SMALL_FRAME))
        return;
    bool exited = WIFEXITED(e->status);
    struct sm_wire_exit m = {
        .code = exited ? WEXITSTATUS(e->status) : -1,
        .signal = exited ? 0 : (uint32_t)(e->spared ? e->spared : WTERMSIG(e->status)),
        .timed_out = e->timed_out,
        .out_of_memory = e->out_of_memory,
        .peak_rss_bytes = e->peak_rss_bytes,
        .wall_us = (e->end_ns - e->start_ns) / 1000,
    };
    struct conn *c = e->conn;
    conn_put(c, SM_WIRE_EXIT, &m);
    conn_leave(c);
    conn_end(c);
    exec_put(e);
}

/* Output that nobody hears any more is taken, so that the command is not held up. */
static void discard(const struct exec *e, struct output *s)
{
    uint8_t unheard[4096];
    ssize_t n = read(s->source.fd, unheard, sizeof(unheard));
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        close_source(e, &s->source);
}

static void exec_ready(unsigned index, uint32_t generation, uint32_t events)
{
    struct exec *e = &execs[index / STREAMS];
    unsigned stream = index % STREAMS;
    const struct source *s = stream == IN ? &e->input : &e->out[stream].source;
    if (e->pid == 0 || e->generation != generation || s->fd < 0)
        return; /* of who had the slot before, or of a pipe that a child has not let go of yet */
    if (stream == IN)
        stdin_writable(e);
    else if (e->conn)
        pump(e, stream, (events & LOOP_END) != 0);
    else if (e->outlives)
        discard(e, &e->out[stream]);
}

/* ---- the conn's side ---------------------------------------------------------------------- */

/* The output of the conn is empty again. */
static void resume(struct conn *c)
{
    struct exec *e = ((struct attached *)conn_own(c))->exec;
    grant(e);
    if (e->ended)
        finish(e);
    else if (watch_outputs(e) != 0)
        signal_group(e, SIGKILL); /* its output cannot be had: better an end than silence */
}

static void lost(struct conn *c)
{
    struct exec *e = ((struct attached *)conn_own(c))->exec;
    e->conn = NULL;
    if (e->flags & SM_WIRE_EXEC_DETACH) {
        pause_outputs(e);
        watch_stdin(e, false);
        buffer_put(e->in);
        e->in = NULL;
        return;
    }
    if (e->outlives && !e->ended && watch_outputs(e) == 0)
        return;
    signal_group(e, SIGKILL);
    close_streams(e);
    if (e->ended)
        exec_put(e);
}

static const struct conn_user attached = {.frame = frame, .writable = resume, .lost = lost};

/* ---- the command's end -------------------------------------------------------------------- */

/* Killed by nobody that we know of, or the last one that it waited for was (a shell's 137), and the
 * kernel had to kill since it began. When that was is not known: who is killed in the container
 * long after may be taken for another one. */
static bool ran_out_of_memory(const struct exec *e, int status)
{
    bool killed =
        WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 128 + SIGKILL;
    if (!killed || e->killed || e->timed_out || e->spared)
        return false;
    kills = system_kills();
    return kills > e->kills;
}

static void ended(struct exec *e, int status, const struct rusage *usage)
{
    timer_set(&e->timer, 0);
    e->ended = true;
    e->status = status;
    e->out_of_memory = ran_out_of_memory(e, status);
    e->end_ns = loop_now_ns();
    e->peak_rss_bytes = (uint64_t)usage->ru_maxrss * 1024u;
    close_stdin(e);
    for (unsigned i = 0; i < 2; i++) {
        struct output *s = &e->out[i];
        int pending = 0;
        if (s->source.fd < 0)
            continue;
        /* A terminal does not count what is still between its two ends; reading tells. */
        if (is_tty(e))
            s->drain = SM_WIRE_MAX_DATA;
        else if (ioctl(s->source.fd, FIONREAD, &pending) == 0 && pending > 0)
            s->drain = (uint32_t)pending;
    }
    if (e->conn)
        finish(e);
    else if (!(e->flags & SM_WIRE_EXEC_DETACH))
        exec_put(e);
}

/* Who ends may be nobody's exec: the container's init, or a start that failed. */
void exec_reap(void)
{
    struct rusage usage;
    int status;
    pid_t pid;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        if (container_reap(pid, status)) {
            loop_stop();
            return;
        }
        for (unsigned i = 0; i < n_execs; i++) {
            if (execs[i].pid == pid && !execs[i].ended) {
                ended(&execs[i], status, &usage);
                break;
            }
        }
    }
}
