/*
 * A running command: the connection that carries its streams, and the thread that moves them.
 *
 * The thread (exec_pump.c) owns the connection, the send buffer and our descriptors. Everybody else
 * leaves a note in `requests` under the lock and rings `wake`; the thread takes the notes up
 * between two polls. What the thread leaves behind (result, error) is read once `done` is set.
 *
 * Back-pressure: of each output stream one frame waits here; while it does, and the next frame is
 * for the same stream, nothing is read from the connection, so vsock credit runs out and the
 * command blocks as it would on a full pipe. Input is read only when all before it has been sent
 * and the agent has granted credit for it, so a command that does not read never holds up signals.
 */
#ifndef SM_VM_AGENT_EXEC_H
#define SM_VM_AGENT_EXEC_H

#include <pthread.h>

#include <supermachine.h>

#include "util/bell.h"
#include "util/guest_wait.h"
#include "util/thread.h"
#include "vm/agent/channel.h"
#include "vm/agent/stream_fd.h"

/* One stream of output on its way to the caller. */
struct sm_exec_output {
    struct sm_stream_fd to;
    uint8_t *held; /* SM_WIRE_MAX_DATA bytes, of which those from begin to end wait */
    size_t begin, end;
};

#define SM_EXEC_MAX_SIGNALS 32

/* The send buffer: one frame of input, and room behind it for requests. */
#define SM_EXEC_SEND_BUFFER (SM_WIRE_HEADER + SM_WIRE_MAX_DATA + 1024)

struct sm_exec {
    sm_vm *vm;    /* NULL: nobody captures it */
    uint32_t pid; /* in the guest */
    struct sm_channel channel;
    struct sm_stream_fd input;
    struct sm_exec_output output[2]; /* stdout, stderr */
    int pipe_ends[3];                /* the caller's, until it takes them; -1: none */
    int stop_signal;                 /* what SM_SIGNAL_STOP means */
    bool tty;                        /* we are its terminal */
    bool terminal;                   /* it has one, be that we or nobody */
    int64_t deadline;                /* the command's own time is over; SM_NO_DEADLINE */
    bool overdue;                    /* it is, and the agent is to end the command: */
    struct sm_guest_wait late;       /* how long that may take */
    struct sm_bell wake;
    struct sm_thread thread;

    /* the thread's own */
    uint8_t *send;
    size_t send_begin, send_end;
    uint64_t credit;
    bool exited;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct {
        struct sm_wire_signal signals[SM_EXEC_MAX_SIGNALS]; /* in the order they came */
        unsigned n_signals;
        bool resize, cancel;
        uint16_t rows, columns;
    } requests;
    bool done;
    int rc; /* of the thread; with it error or result */
    sm_error error;
    sm_exec_result result;
};

/* What is asked of the agent: to start a command, or to give one that runs. */
struct sm_exec_request {
    struct sm_wire_exec exec;     /* flags for the streams are added */
    struct sm_wire_attach attach; /* if pid is not 0 */
    bool sent;                    /* already: only the answer is waited for */
};

/* The flags of EXEC that say which streams there are. */
uint32_t sm_exec_stream_flags(const sm_exec_config *config);

/* Sends the request on the channel, which is taken over even when it fails, and starts the thread.
 * The streams are those of config. */
int sm_exec_begin(struct sm_channel *channel, const struct sm_exec_request *request,
    const sm_exec_config *config, int stop_signal, sm_exec **exec, sm_error *err);

/* The command's pid in the guest; 0: it has ended. */
uint32_t sm_exec_running(sm_exec *exec);

/* As the public functions of an exec. await: SM_ETIMEOUT, it runs on. end: kills what still runs,
 * and frees. */
int sm_exec_take_fd(sm_exec *exec, int stream);
int sm_exec_put_signal(sm_exec *exec, int signal, sm_error *err);
int sm_exec_put_size(sm_exec *exec, uint16_t rows, uint16_t columns, sm_error *err);
int sm_exec_await(sm_exec *exec, struct sm_wait *wait, sm_exec_result *result, sm_error *err);
void sm_exec_end(sm_exec *exec);

/* The thread's function; arg is the exec. */
void sm_exec_pump(void *arg);

#endif
