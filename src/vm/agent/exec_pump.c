/* The thread of an exec. See exec.h for who owns what, and for the rules of back-pressure. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"
#include "vm/agent/exec.h"
#include "vm/engine.h"

#define CONTROL_MAX 32 /* no frame of a request is longer */
/* Of the guest's time: the agent kills at the timeout, so it takes none. */
#define KILL_WAIT_MS 15000

enum { FD_CHANNEL, FD_WAKE, FD_INPUT, FD_STDOUT, FD_STDERR, FD_MACHINE, N_FDS };

static bool room_for_control(const sm_exec *e)
{
    return SM_EXEC_SEND_BUFFER - e->send_end >= CONTROL_MAX;
}

static void queue_signal(sm_exec *e, struct sm_wire_signal signal)
{
    struct sm_wire_writer w = {
        .buf = e->send + e->send_end, .cap = SM_EXEC_SEND_BUFFER - e->send_end};
    sm_wire_put_signal(&w, &signal);
    e->send_end += w.len;
}

static void queue_resize(sm_exec *e, uint16_t rows, uint16_t columns)
{
    struct sm_wire_writer w = {
        .buf = e->send + e->send_end, .cap = SM_EXEC_SEND_BUFFER - e->send_end};
    sm_wire_put_resize(&w, &(struct sm_wire_resize){.rows = rows, .columns = columns});
    e->send_end += w.len;
}

/* Puts what others asked for into the send buffer, as far as there is room; *left: not all of it.
 * False: the exec is to end. */
static bool take_requests(sm_exec *e, bool *left)
{
    sm_bell_clear(&e->wake);
    pthread_mutex_lock(&e->lock);
    unsigned taken = 0;
    while (taken < e->requests.n_signals && room_for_control(e))
        queue_signal(e, e->requests.signals[taken++]);
    e->requests.n_signals -= taken;
    memmove(e->requests.signals, e->requests.signals + taken,
        e->requests.n_signals * sizeof(e->requests.signals[0]));
    if (e->requests.resize && room_for_control(e)) {
        queue_resize(e, e->requests.rows, e->requests.columns);
        e->requests.resize = false;
    }
    *left = e->requests.n_signals || e->requests.resize;
    bool go_on = !e->requests.cancel;
    pthread_mutex_unlock(&e->lock);
    return go_on;
}

static bool wants_input(const sm_exec *e)
{
    return e->input.fd >= 0 && e->send_end == 0 && e->credit && !e->exited;
}

static void read_input(sm_exec *e)
{
    size_t max = SM_MIN(e->credit, (uint64_t)SM_WIRE_MAX_DATA);
    ssize_t n = sm_stream_fd_read(&e->input, e->send + SM_WIRE_HEADER, max);
    if (n > 0) {
        sm_wire_data_header(e->send, SM_WIRE_STDIN, (uint32_t)n);
        e->send_end = SM_WIRE_HEADER + (size_t)n;
        e->credit -= (uint64_t)n;
        return;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    /* The end; or a failure (the terminal is gone), which for the command is the same. */
    struct sm_wire_writer w = {.buf = e->send, .cap = SM_EXEC_SEND_BUFFER};
    sm_wire_put_empty(&w, SM_WIRE_STDIN_EOF);
    e->send_end = w.len;
    sm_stream_fd_close(&e->input);
}

/* Sends what it can. A connection that was closed shows when it is read. */
static void send_some(sm_exec *e)
{
    while (e->send_begin < e->send_end) {
        ssize_t n = send(e->channel.fd, e->send + e->send_begin, e->send_end - e->send_begin,
            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            break;
        e->send_begin += (size_t)n;
    }
    e->send_begin = e->send_end = 0;
}

/* Nobody reads this output any more: the command learns it as it would from a pipe or a terminal
 * of its own, and what it writes on is dropped. */
static void output_gone(sm_exec *e, struct sm_exec_output *o)
{
    sm_stream_fd_close(&o->to);
    o->begin = o->end = 0;
    pthread_mutex_lock(&e->lock);
    if (e->requests.n_signals < SM_EXEC_MAX_SIGNALS)
        e->requests.signals[e->requests.n_signals++] =
            (struct sm_wire_signal){.signal = e->tty ? SIGHUP : SIGPIPE, .group = 1};
    pthread_mutex_unlock(&e->lock);
    sm_bell_ring(&e->wake);
}

/* Writes as much as the caller's descriptor takes now; the number of bytes that are done with. */
static size_t write_some(sm_exec *e, struct sm_exec_output *o, const uint8_t *data, size_t size)
{
    size_t done = 0;
    while (done < size && o->to.fd >= 0) {
        struct pollfd p = {.fd = o->to.fd, .events = POLLOUT};
        if (poll(&p, 1, 0) == 0)
            return done;
        ssize_t n = sm_stream_fd_write(&o->to, data + done, size - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN)
            return done;
        else if (errno != EINTR)
            output_gone(e, o);
    }
    return size;
}

static void drain_output(sm_exec *e, struct sm_exec_output *o)
{
    o->begin += write_some(e, o, o->held + o->begin, o->end - o->begin);
    if (o->begin >= o->end)
        o->begin = o->end = 0;
}

/* The stream that a frame is for; NULL: none. */
static struct sm_exec_output *output_of(sm_exec *e, uint16_t type)
{
    if (type == SM_WIRE_STDOUT)
        return &e->output[0];
    return type == SM_WIRE_STDERR ? &e->output[1] : NULL;
}

static int take_frame(sm_exec *e, const struct sm_wire_frame *frame)
{
    struct sm_exec_output *o = output_of(e, frame->type);
    if (o) {
        size_t n = write_some(e, o, frame->payload, frame->len);
        if (n < frame->len) {
            o->begin = 0;
            o->end = frame->len - n;
            memcpy(o->held, frame->payload + n, o->end);
        }
        return 0;
    }
    struct sm_wire_window window;
    if (sm_wire_get_window(frame, &window)) {
        e->credit += window.bytes;
        return 0;
    }
    struct sm_wire_exit exit;
    if (!sm_wire_get_exit(frame, &exit))
        return sm_channel_refused(frame, &e->error);
    if (exit.signal > 64 || (exit.signal == 0 && (exit.code < 0 || exit.code > 255)))
        return sm_error_set(
            &e->error, SM_EPROTOCOL, "the agent in the VM reported an impossible exit status");
    e->exited = true;
    e->result = (sm_exec_result){
        .exit_code = exit.signal ? -1 : exit.code,
        .signal = (int)exit.signal,
        .timed_out = exit.timed_out != 0,
        .out_of_memory = exit.out_of_memory != 0,
        .peak_rss_bytes = exit.peak_rss_bytes,
        .wall_us = exit.wall_us,
    };
    return 0;
}

/* Takes up frames until more bytes are needed (0) or one must wait for its stream (1). */
static int take_frames(sm_exec *e)
{
    while (!e->exited) {
        size_t begin = e->channel.begin;
        struct sm_wire_frame frame;
        int rc = sm_channel_parse(&e->channel, &frame, &e->error);
        if (rc <= 0)
            return rc;
        struct sm_exec_output *o = output_of(e, frame.type);
        if (o && o->end) {
            e->channel.begin = begin;
            return 1;
        }
        rc = take_frame(e, &frame);
        if (rc)
            return rc;
    }
    return 0;
}

/* For poll: until the agent must have killed the command, whose time was over. */
static int time_left(sm_exec *e)
{
    if (e->exited || e->deadline == SM_NO_DEADLINE)
        return -1;
    int left = sm_deadline_left(e->deadline);
    if (left > 0)
        return left;
    if (!e->overdue)
        sm_guest_wait_begin(&e->late, sm_channel_clock(&e->channel), KILL_WAIT_MS);
    e->overdue = true;
    return sm_wait_slice(&e->late.wait);
}

/* What is waited for: `blocked`: not for more from the channel; `last_words`: not for the machine's
 * end, which is known. */
static int wait_for_any(
    sm_exec *e, bool blocked, bool last_words, struct pollfd fds[N_FDS], sm_error *err)
{
    const struct sm_channel *c = &e->channel;
    bool by_machine = c->engine && !e->exited && !last_words;
    short events = (!blocked && !e->exited ? POLLIN : 0) | (e->send_end ? POLLOUT : 0);
    /* A channel of which nothing is wanted would keep us awake by its hang-up. */
    fds[FD_CHANNEL] = (struct pollfd){.fd = events ? c->fd : -1, .events = events};
    fds[FD_WAKE] = (struct pollfd){.fd = sm_bell_fd(&e->wake), .events = POLLIN};
    fds[FD_INPUT] = (struct pollfd){.fd = wants_input(e) ? e->input.fd : -1, .events = POLLIN};
    for (int i = 0; i < 2; i++)
        fds[FD_STDOUT + i] =
            (struct pollfd){.fd = e->output[i].end ? e->output[i].to.fd : -1, .events = POLLOUT};
    fds[FD_MACHINE] =
        (struct pollfd){.fd = by_machine ? sm_engine_end_fd(c->engine) : -1, .events = POLLIN};
    int n = poll(fds, N_FDS, time_left(e));
    if (n < 0 && errno != EINTR)
        return sm_error_errno(err, errno, "cannot wait for the command's streams");
    if (n >= 0 && e->overdue && !e->exited && sm_wait_over(&e->late.wait))
        return sm_wait_failed(
            &e->late.wait, err, "the time of the command was over, and the VM did not end it");
    if (n < 0)
        memset(fds, 0, N_FDS * sizeof(*fds)); /* nothing has happened */
    return 0;
}

/* All that can be done without waiting. 1: the next frame must wait for its stream. */
static int move_on(sm_exec *e)
{
    bool left;
    do {
        if (!take_requests(e, &left))
            return sm_error_set(&e->error, SM_ECANCELLED, "the exec was closed");
        send_some(e);
    } while (left && !e->send_end);
    return take_frames(e);
}

static bool is_over(const sm_exec *e)
{
    return e->exited && !e->output[0].end && !e->output[1].end;
}

static int pump(sm_exec *e)
{
    struct sm_channel *c = &e->channel;
    bool last_words = false; /* the machine has ended, and so will the channel */
    for (;;) {
        struct pollfd fds[N_FDS];
        int blocked = move_on(e);
        if (blocked < 0 || is_over(e))
            return blocked < 0 ? blocked : 0;
        int rc = wait_for_any(e, blocked, last_words, fds, &e->error);
        if (rc)
            return rc;
        if (fds[FD_STDOUT].revents)
            drain_output(e, &e->output[0]);
        if (fds[FD_STDERR].revents)
            drain_output(e, &e->output[1]);
        if (fds[FD_INPUT].revents)
            read_input(e); /* sent at the top */
        if (fds[FD_CHANNEL].revents & (POLLIN | POLLHUP | POLLERR)) {
            rc = sm_channel_fill(c, &e->error);
            if (rc <= 0 && !e->exited)
                return rc ? rc : sm_channel_lost(c, &e->error);
        } else if (fds[FD_MACHINE].revents) {
            if (blocked)
                return sm_channel_lost(c, &e->error);
            sm_engine_end_streams(c->engine);
            last_words = true;
        }
    }
}

void sm_exec_pump(void *arg)
{
    sm_exec *e = arg;
    int rc = pump(e);
    /* Whoever reads the pipes must see their end, and the agent that nobody listens any more. */
    sm_stream_fd_close(&e->input);
    sm_stream_fd_close(&e->output[0].to);
    sm_stream_fd_close(&e->output[1].to);
    sm_channel_close(&e->channel);
    pthread_mutex_lock(&e->lock);
    e->rc = rc;
    e->done = true;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}
