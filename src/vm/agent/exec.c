/* A running command. See exec.h. */
#include "vm/agent/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/thread.h"

#define THREAD_STACK (256 * 1024)

/* What frees an exec that has no thread. */
static void destroy(sm_exec *e)
{
    sm_channel_close(&e->channel);
    sm_stream_fd_close(&e->input);
    for (int i = 0; i < 2; i++) {
        sm_stream_fd_close(&e->output[i].to);
        free(e->output[i].held);
    }
    for (int i = 0; i < 3; i++)
        sm_close(e->pipe_ends[i]);
    sm_bell_close(&e->wake);
    free(e->send);
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

static sm_exec *create(void)
{
    sm_exec *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->channel.fd = e->input.fd = e->output[0].to.fd = e->output[1].to.fd = -1;
    e->pipe_ends[0] = e->pipe_ends[1] = e->pipe_ends[2] = -1;
    e->wake = SM_BELL_NONE;
    pthread_mutex_init(&e->lock, NULL);
    sm_cond_init(&e->changed);
    e->send = malloc(SM_EXEC_SEND_BUFFER);
    if (!e->send) {
        destroy(e);
        return NULL;
    }
    return e;
}

/* Opens stream number `i` of the caller. */
static int open_stream(sm_exec *e, int i, int fd, struct sm_stream_fd *stream, sm_error *err)
{
    bool writing = i > 0;
    if (fd == SM_FD_NULL)
        return 0;
    if (fd == SM_FD_STDIN)
        return sm_stream_fd_open(stream, STDIN_FILENO, writing, err);
    if (fd != SM_FD_PIPE)
        return sm_stream_fd_open(stream, fd, writing, err);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return sm_error_errno(err, errno, "cannot make a pipe");
    e->pipe_ends[i] = ends[!writing];
    int rc = sm_stream_fd_open(stream, ends[writing], writing, err);
    sm_close(ends[writing]);
    return rc;
}

static int open_streams(sm_exec *e, const sm_exec_config *config, sm_error *err)
{
    int rc = open_stream(e, 0, config->stdin_fd, &e->input, err);
    if (!rc)
        rc = open_stream(e, 1, config->stdout_fd, &e->output[0].to, err);
    if (!rc && !config->tty)
        rc = open_stream(e, 2, config->stderr_fd, &e->output[1].to, err);
    for (int i = 0; !rc && i < 2; i++) {
        if (e->output[i].to.fd < 0)
            continue;
        e->output[i].held = malloc(SM_WIRE_MAX_DATA);
        if (!e->output[i].held)
            rc = sm_error_set(err, SM_ENOMEM, "no memory for the command's streams");
    }
    return rc;
}

uint32_t sm_exec_stream_flags(const sm_exec_config *config)
{
    return (config->stdin_fd != SM_FD_NULL ? SM_WIRE_EXEC_STDIN : 0) |
           (config->stdout_fd != SM_FD_NULL ? SM_WIRE_EXEC_STDOUT : 0) |
           (config->stderr_fd != SM_FD_NULL && !config->tty ? SM_WIRE_EXEC_STDERR : 0);
}

static int send_request(sm_exec *e, const struct sm_exec_request *request,
    const sm_exec_config *config, struct sm_wait *wait, sm_error *err)
{
    if (request->attach.pid)
        return sm_channel_send_message(&e->channel, SM_WIRE_ATTACH, &request->attach, wait, err);
    struct sm_wire_exec exec = request->exec;
    exec.flags |= sm_exec_stream_flags(config);
    return sm_channel_send_message(&e->channel, SM_WIRE_EXEC, &exec, wait, err);
}

/* Sends the request, if it was not yet, and waits for STARTED. */
static int start(
    sm_exec *e, const struct sm_exec_request *request, const sm_exec_config *config, sm_error *err)
{
    struct sm_guest_wait w;
    sm_guest_wait_begin(&w, sm_channel_clock(&e->channel), SM_AGENT_TIMEOUT_MS);
    struct sm_wire_started started = {0};
    int rc = request->sent ? 0 : send_request(e, request, config, &w.wait, err);
    if (!rc)
        rc = sm_channel_expect(&e->channel, SM_WIRE_STARTED, &started, &w.wait, err);
    if (!rc)
        e->pid = started.pid;
    return rc == -SM_ELIMIT
               ? sm_error_prefix(err, rc, "the command's arguments and environment are too long")
               : rc;
}

/* The thread's mask is what makes EPIPE quiet: it has SIGPIPE blocked. */
static int start_thread(sm_exec *e, sm_error *err)
{
    int rc = sm_bell_make(&e->wake, err);
    if (!rc)
        rc = sm_thread_start(&e->thread, "exec", sm_exec_pump, e, THREAD_STACK, err);
    return rc ? sm_error_prefix(err, rc, "the command's streams") : 0;
}

int sm_exec_begin(struct sm_channel *channel, const struct sm_exec_request *request,
    const sm_exec_config *config, int stop_signal, sm_exec **exec, sm_error *err)
{
    sm_exec *e = create();
    if (!e) {
        sm_channel_close(channel);
        return sm_error_set(err, SM_ENOMEM, "no memory to start a command");
    }
    e->channel = *channel;
    *channel = (struct sm_channel){.fd = -1};
    e->stop_signal = stop_signal;
    e->tty = config->tty;
    e->credit = SM_WIRE_STDIN_WINDOW;
    e->deadline = config->timeout_ms > 0 ? sm_deadline(config->timeout_ms) : SM_NO_DEADLINE;
    int rc = open_streams(e, config, err);
    if (!rc)
        rc = start(e, request, config, err);
    if (!rc)
        rc = start_thread(e, err);
    if (rc) {
        destroy(e);
        return rc;
    }
    *exec = e;
    return 0;
}

uint32_t sm_exec_running(sm_exec *exec)
{
    pthread_mutex_lock(&exec->lock);
    uint32_t pid = exec->done ? 0 : exec->pid;
    pthread_mutex_unlock(&exec->lock);
    return pid;
}

int sm_exec_take_fd(sm_exec *exec, int stream)
{
    if (stream < 0 || stream > 2)
        return -1;
    pthread_mutex_lock(&exec->lock);
    int fd = sm_steal_fd(&exec->pipe_ends[stream]);
    pthread_mutex_unlock(&exec->lock);
    return fd;
}

int sm_exec_put_signal(sm_exec *exec, int signal, sm_error *err)
{
    if (signal == SM_SIGNAL_STOP)
        signal = exec->stop_signal;
    if (signal < 1 || signal > 64)
        return sm_error_set(err, SM_EINVAL, "there is no signal %d", signal);
    pthread_mutex_lock(&exec->lock);
    bool full = !exec->done && exec->requests.n_signals == SM_EXEC_MAX_SIGNALS;
    if (!full && !exec->done)
        exec->requests.signals[exec->requests.n_signals++] =
            (struct sm_wire_signal){.signal = (uint32_t)signal};
    pthread_mutex_unlock(&exec->lock);
    if (full)
        return sm_error_set(err, SM_EBUSY, "too many signals wait for the VM already");
    sm_bell_ring(&exec->wake);
    return 0;
}

int sm_exec_put_size(sm_exec *exec, uint16_t rows, uint16_t columns, sm_error *err)
{
    if (!exec->tty)
        return sm_error_set(err, SM_EINVAL, "the command has no terminal");
    pthread_mutex_lock(&exec->lock);
    exec->requests.resize = true;
    exec->requests.rows = rows;
    exec->requests.columns = columns;
    pthread_mutex_unlock(&exec->lock);
    sm_bell_ring(&exec->wake);
    return 0;
}

int sm_exec_await(sm_exec *exec, struct sm_wait *wait, sm_exec_result *result, sm_error *err)
{
    bool over = false;
    pthread_mutex_lock(&exec->lock);
    while (!exec->done && !over) {
        int64_t slice = sm_deadline(sm_wait_slice(wait));
        if (sm_cond_wait_until(&exec->changed, &exec->lock, slice))
            continue;
        pthread_mutex_unlock(&exec->lock);
        over = sm_wait_over(wait);
        pthread_mutex_lock(&exec->lock);
    }
    bool done = exec->done;
    pthread_mutex_unlock(&exec->lock);
    if (!done)
        return sm_error_set(err, SM_ETIMEOUT, "the command still runs");
    if (exec->rc) {
        if (err)
            *err = exec->error;
        return exec->rc;
    }
    if (result)
        *result = exec->result;
    return 0;
}

void sm_exec_end(sm_exec *exec)
{
    if (!exec)
        return;
    if (exec->thread.started) {
        pthread_mutex_lock(&exec->lock);
        exec->requests.cancel = true;
        pthread_mutex_unlock(&exec->lock);
        sm_bell_ring(&exec->wake);
        sm_thread_join(&exec->thread);
    }
    destroy(exec);
}
