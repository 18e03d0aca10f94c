/*
 * What the host reads from an agent that root in the guest has replaced: answers to requests, and
 * the streams and the end of a command. The bytes come in the pieces of the input: each is a record
 * of a sequenced socket, which a read does not join with the next.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>

#include "fuzz.h"
#include "util/clock.h"
#include "util/wait.h"
#include "vm/agent/exec.h"

#define MAX_PIECES 32

/* The agent's end sends the pieces, each of which has its length in front, and is not heard of any
 * more. */
static void play_agent(struct fuzz_input *in, int ends[2])
{
    fuzz_demand(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    for (unsigned i = 0; in->left > 0 && i < MAX_PIECES; i++) {
        size_t n = 1 + fuzz_take(in, 2) % 16384;
        const uint8_t *piece = fuzz_bytes(in, &n);
        if (n > 0)
            (void)!send(ends[1], piece, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    shutdown(ends[1], SHUT_WR);
}

union answer {
#define MEMBER(TYPE, name) struct sm_wire_##name name;
    SM_WIRE_MESSAGES(MEMBER)
#undef MEMBER
};

static void demand_clean(const sm_error *err)
{
    fuzz_demand(strnlen(err->message, sizeof(err->message)) < sizeof(err->message));
    for (const char *p = err->message; *p; p++)
        fuzz_demand((unsigned char)*p >= 0x20 && *p != 0x7f);
}

static void ask(struct fuzz_input *in, enum sm_wire_type type)
{
    struct sm_channel c;
    union answer m;
    sm_error err = {.code = SM_OK};
    struct sm_wait wait = sm_wait_ms(-1);
    int ends[2];
    play_agent(in, ends);
    fuzz_demand(sm_channel_init(&c, ends[0], NULL, &err) == 0);
    while (sm_channel_expect(&c, type, type == SM_WIRE_OK ? NULL : &m, &wait, &err) == 0)
        ;
    demand_clean(&err);
    sm_channel_close(&c);
    close(ends[1]);
}

static void open_stream(struct sm_stream_fd *s, const char *path, bool writing)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    fuzz_demand(fd >= 0 && sm_stream_fd_open(s, fd, writing, NULL) == 0);
    close(fd);
}

/* A command, as sm_exec_begin has set it up, on this thread. */
static void run(struct fuzz_input *in)
{
    sm_exec e = {.stop_signal = 15, .tty = fuzz_take(in, 1) & 1, .deadline = SM_NO_DEADLINE};
    int ends[2];
    play_agent(in, ends);
    fuzz_demand(sm_channel_init(&e.channel, ends[0], NULL, NULL) == 0);
    fuzz_demand(sm_bell_make(&e.wake, NULL) == 0);
    e.send = malloc(SM_EXEC_SEND_BUFFER);
    open_stream(&e.input, "/dev/zero", false);
    for (int i = 0; i < 2; i++) {
        open_stream(&e.output[i].to, "/dev/null", true);
        e.output[i].held = malloc(SM_WIRE_MAX_DATA);
        fuzz_demand(e.output[i].held);
    }
    fuzz_demand(e.send);
    pthread_mutex_init(&e.lock, NULL);
    pthread_cond_init(&e.changed, NULL);
    sm_exec_pump(&e);
    fuzz_demand(e.done);
    if (e.rc == 0)
        fuzz_demand(e.exited && (e.result.signal > 0 || e.result.exit_code >= 0));
    else
        demand_clean(&e.error);
    pthread_cond_destroy(&e.changed);
    pthread_mutex_destroy(&e.lock);
    free(e.output[0].held);
    free(e.output[1].held);
    free(e.send);
    sm_bell_close(&e.wake);
    close(ends[1]);
}

/* Input: what is asked, then the agent's bytes in pieces. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum sm_wire_type answers[] = {SM_WIRE_OK, SM_WIRE_PONG, SM_WIRE_HELLO,
        SM_WIRE_STARTED, SM_WIRE_FILE, SM_WIRE_SOCKETS, SM_WIRE_EXIT};
    struct fuzz_input in = {data, size};
    uint64_t kind = fuzz_take(&in, 1);
    int before = fuzz_next_fd();
    if (kind & 0x80)
        run(&in);
    else
        ask(&in, answers[kind % (sizeof(answers) / sizeof(answers[0]))]);
    fuzz_demand(fuzz_next_fd() == before);
    return 0;
}
