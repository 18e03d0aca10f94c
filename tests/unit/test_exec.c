/* An exec against a fake agent at the other end of a socketpair. The agent is a thread that plays a
 * script; everything it does not expect ends the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "patience.h"
#include "util/bell.h"
#include "util/error.h"
#include "vm/agent/exec.h"
#include "vm/vm.h"

/* ---- the fake agent ------------------------------------------------------------------------ */

struct agent {
    int fd;
    uint8_t buf[SM_WIRE_HEADER + SM_WIRE_MAX_DATA];
    size_t have;
    struct sm_wire_frame frame;
    void (*script)(struct agent *);
    pthread_t thread;
};

static void check(bool ok, const char *what)
{
    if (!ok) {
        print_error("fake agent: %s\n", what);
        abort();
    }
}

/* The next frame; false at the end of the connection. */
static bool receive(struct agent *a)
{
    if (a->frame.payload) {
        size_t used = SM_WIRE_HEADER + a->frame.len;
        a->have -= used;
        memmove(a->buf, a->buf + used, a->have);
        a->frame.payload = NULL;
    }
    for (;;) {
        int rc = sm_wire_parse(a->buf, a->have, &a->frame);
        check(rc >= 0, "not a frame");
        if (rc)
            return true;
        ssize_t n = recv(a->fd, a->buf + a->have, sizeof(a->buf) - a->have, 0);
        if (n <= 0)
            return false;
        a->have += (size_t)n;
    }
}

static void expect(struct agent *a, uint16_t type)
{
    check(receive(a), "connection ended early");
    if (a->frame.type != type) {
        print_error("fake agent: got %s, not %s\n", sm_wire_type_name(a->frame.type),
            sm_wire_type_name(type));
        abort();
    }
}

static void transmit(struct agent *a, const void *data, size_t size)
{
    const uint8_t *p = data;
    while (size) {
        ssize_t n = send(a->fd, p, size, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the other side has had enough: what follows will tell */
        p += n;
        size -= (size_t)n;
    }
}

static void put(struct agent *a, enum sm_wire_type type, const void *message)
{
    uint8_t frame[1024];
    struct sm_wire_writer w = {.buf = frame, .cap = sizeof(frame)};
    sm_wire_put(&w, type, message);
    check(!w.failed, "message does not fit");
    transmit(a, frame, w.len);
}

static void put_data(struct agent *a, enum sm_wire_type type, const void *data, size_t size)
{
    uint8_t header[SM_WIRE_HEADER];
    sm_wire_data_header(header, type, (uint32_t)size);
    transmit(a, header, sizeof(header));
    transmit(a, data, size);
}

static void start(struct agent *a)
{
    expect(a, SM_WIRE_EXEC);
    put(a, SM_WIRE_STARTED, &(struct sm_wire_started){.pid = 2});
}

static void end(struct agent *a, int code)
{
    put(a, SM_WIRE_EXIT, &(struct sm_wire_exit){.code = code, .wall_us = 5, .peak_rss_bytes = 6});
}

static void *play(void *arg)
{
    struct agent *a = arg;
    a->script(a);
    close(a->fd);
    return NULL;
}

static const char *const command[] = {"cmd", NULL};

/* A machine, as far as an exec asks it. */
static struct {
    struct sm_bell ended;
    struct sm_bell passed; /* its device is asked for what the guest has sent */
} machine = {{.fd = -1}, {.fd = -1}};

int __wrap_sm_engine_end_fd(const struct sm_engine *e);
int __wrap_sm_engine_end_fd(const struct sm_engine *e)
{
    return sm_bell_fd(&machine.ended);
}

int __wrap_sm_engine_wait(
    struct sm_engine *e, struct sm_wait *wait, enum sm_vm_end *how, sm_error *err);
int __wrap_sm_engine_wait(
    struct sm_engine *e, struct sm_wait *wait, enum sm_vm_end *how, sm_error *err)
{
    sm_error_set(err, SM_EGUEST, "it has ended");
    return 0;
}

void __wrap_sm_engine_end_streams(struct sm_engine *e);
void __wrap_sm_engine_end_streams(struct sm_engine *e)
{
    sm_bell_ring(&machine.passed);
}

/* There is no guest whose time could be asked for. */
const struct sm_guest_clock *__wrap_sm_engine_clock(struct sm_engine *e);
const struct sm_guest_clock *__wrap_sm_engine_clock(struct sm_engine *e)
{
    return NULL;
}

static int begin(struct agent *a, void (*script)(struct agent *), const sm_exec_config *config,
    sm_exec **exec, sm_error *err)
{
    struct sm_engine *with = sm_bell_fd(&machine.ended) >= 0 ? (struct sm_engine *)&machine : NULL;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    *a = (struct agent){.fd = ends[1], .script = script};
    assert_int_equal(pthread_create(&a->thread, NULL, play, a), 0);
    struct sm_channel channel;
    assert_int_equal(sm_channel_init(&channel, ends[0], with, err), 0);
    const struct sm_exec_request request = {.exec = {
                                                .flags = config->tty ? SM_WIRE_EXEC_TTY : 0,
                                                .user = "",
                                                .cwd = "",
                                                .argv = {.strv = command},
                                            }};
    return sm_exec_begin(&channel, &request, config, SIGQUIT, exec, err);
}

/* Runs to the end, which must be in order. */
static void finish(struct agent *a, sm_exec *exec, sm_exec_result *result)
{
    sm_error err;
    if (sm_exec_wait(exec, PATIENCE_MS, result, &err))
        fail_msg("%s", err.message);
    sm_exec_close(exec);
    pthread_join(a->thread, NULL);
}

static void read_all(int fd, char *buf, size_t size)
{
    size_t n = 0;
    ssize_t got;
    while (n < size - 1 && (got = read(fd, buf + n, size - 1 - n)) > 0)
        n += (size_t)got;
    buf[n] = '\0';
    close(fd);
}

/* ---- output and result ----------------------------------------------------------------------- */

static void script_two_streams(struct agent *a)
{
    expect(a, SM_WIRE_EXEC);
    struct sm_wire_exec m;
    check(sm_wire_get_exec(&a->frame, &m), "EXEC is malformed");
    check(m.flags == (SM_WIRE_EXEC_STDOUT | SM_WIRE_EXEC_STDERR), "flags");
    put(a, SM_WIRE_STARTED, &(struct sm_wire_started){.pid = 2});
    put_data(a, SM_WIRE_STDOUT, "out", 3);
    put_data(a, SM_WIRE_STDERR, "err", 3);
    put_data(a, SM_WIRE_STDOUT, "put", 3);
    end(a, 7);
}

static void test_streams_and_code(void **state)
{
    struct agent a;
    sm_exec *exec;
    sm_exec_result r;
    const sm_exec_config config = {.stdout_fd = SM_FD_PIPE, .stderr_fd = SM_FD_PIPE};
    assert_int_equal(begin(&a, script_two_streams, &config, &exec, NULL), 0);
    int out = sm_exec_fd(exec, 1), err = sm_exec_fd(exec, 2);
    assert_int_equal(sm_exec_fd(exec, 0), -1);
    assert_int_equal(sm_exec_fd(exec, 1), -1); /* taken */
    finish(&a, exec, &r);
    assert_int_equal(r.exit_code, 7);
    assert_int_equal(r.signal, 0);
    assert_int_equal(r.wall_us, 5);
    assert_int_equal(r.peak_rss_bytes, 6);
    char text[16];
    read_all(out, text, sizeof(text));
    assert_string_equal(text, "output");
    read_all(err, text, sizeof(text));
    assert_string_equal(text, "err");
}

static void script_killed(struct agent *a)
{
    start(a);
    put(a, SM_WIRE_EXIT, &(struct sm_wire_exit){.code = -1, .signal = 9, .timed_out = 1});
}

static void test_signal_result(void **state)
{
    struct agent a;
    sm_exec *exec;
    sm_exec_result r;
    assert_int_equal(begin(&a, script_killed, &(sm_exec_config){0}, &exec, NULL), 0);
    finish(&a, exec, &r);
    assert_int_equal(r.exit_code, -1);
    assert_int_equal(r.signal, 9);
    assert_true(r.timed_out);
}

/* ---- refusals ------------------------------------------------------------------------------ */

static void script_not_found(struct agent *a)
{
    expect(a, SM_WIRE_EXEC);
    put(a, SM_WIRE_ERROR,
        &(struct sm_wire_error){
            .kind = SM_WIRE_E_NOT_FOUND, .errnum = 2, .message = "no command \x1b[31m'cmd'"});
}

static void script_cannot_exec(struct agent *a)
{
    expect(a, SM_WIRE_EXEC);
    put(a, SM_WIRE_ERROR,
        &(struct sm_wire_error){
            .kind = SM_WIRE_E_CANNOT_EXEC, .errnum = ELOOP, .message = "not executable"});
}

static void script_hang_up(struct agent *a)
{
    expect(a, SM_WIRE_EXEC);
}

static void script_garbage(struct agent *a)
{
    expect(a, SM_WIRE_EXEC);
    transmit(a, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
}

static void script_wrong_answer(struct agent *a)
{
    expect(a, SM_WIRE_EXEC);
    put(a, SM_WIRE_PONG, &(struct sm_wire_pong){0});
}

static void script_unknown_kind(struct agent *a)
{
    expect(a, SM_WIRE_EXEC);
    put(a, SM_WIRE_ERROR, &(struct sm_wire_error){.kind = 4000000000u, .message = "odd"});
}

static void test_refusals(void **state)
{
    static const struct {
        void (*script)(struct agent *);
        enum sm_code code;
        const char *message;
    } cases[] = {
        {script_not_found, SM_ENOTFOUND, "no command ?[31m'cmd'"},
        {script_cannot_exec, SM_ENOEXEC, "not executable: Too many levels of symbolic links"},
        {script_hang_up, SM_EGUEST, "closed"},
        {script_garbage, SM_EPROTOCOL, "no message"},
        {script_wrong_answer, SM_EPROTOCOL, "PONG"},
        {script_unknown_kind, SM_EGUEST, "odd"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct agent a;
        sm_exec *exec = NULL;
        sm_error err;
        assert_int_equal(
            begin(&a, cases[i].script, &(sm_exec_config){.stdout_fd = SM_FD_PIPE}, &exec, &err),
            -(int)cases[i].code);
        assert_null(exec);
        if (!strstr(err.message, cases[i].message))
            fail_msg("'%s' lacks '%s'", err.message, cases[i].message);
        pthread_join(a.thread, NULL);
    }
}

/* A service that could not be taken up is there for the next one who asks. */
static void test_a_failed_start_leaves_the_service(void **state)
{
    int ends[2], fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    sm_image image = {0};
    sm_vm vm = {.image = &image,
        .service_pid = 5,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .capturing = PTHREAD_RWLOCK_INITIALIZER};
    sm_exec *exec = NULL;
    assert_int_equal(sm_channel_init(&vm.own, ends[0], NULL, NULL), 0);
    assert_true(sm_exec_start(&vm, &(sm_exec_config){.stdout_fd = fd}, &exec, NULL) < 0);
    assert_null(exec);
    assert_int_equal(vm.service_pid, 5);
    close(ends[1]);
    close(fd);
}

static void script_lost_later(struct agent *a)
{
    start(a);
    put_data(a, SM_WIRE_STDOUT, "begun", 5);
}

static void script_bad_status(struct agent *a)
{
    start(a);
    end(a, 256);
}

static void test_lost_connection(void **state)
{
    struct agent a;
    sm_exec *exec;
    sm_error err;
    assert_int_equal(
        begin(&a, script_lost_later, &(sm_exec_config){.stdout_fd = SM_FD_PIPE}, &exec, NULL), 0);
    int out = sm_exec_fd(exec, 1);
    char text[16];
    read_all(out, text, sizeof(text)); /* ends although nobody closed the exec */
    assert_string_equal(text, "begun");
    assert_int_equal(sm_exec_wait(exec, PATIENCE_MS, NULL, &err), -SM_EGUEST);
    assert_int_equal(sm_exec_wait(exec, 0, NULL, &err), -SM_EGUEST);
    sm_exec_close(exec);
    pthread_join(a.thread, NULL);

    assert_int_equal(begin(&a, script_bad_status, &(sm_exec_config){0}, &exec, NULL), 0);
    assert_int_equal(sm_exec_wait(exec, PATIENCE_MS, NULL, &err), -SM_EPROTOCOL);
    sm_exec_close(exec);
    pthread_join(a.thread, NULL);
}

/* The machine's end is known before its device has passed on what the guest had sent. */
static void script_last_words(struct agent *a)
{
    start(a);
    sm_bell_ring(&machine.ended);
    struct pollfd fds[] = {{.fd = sm_bell_fd(&machine.passed), .events = POLLIN}, {.fd = a->fd}};
    poll(fds, 2, -1);
    put_data(a, SM_WIRE_STDOUT, "last words", 10);
}

static void test_last_words_of_a_machine(void **state)
{
    struct agent a;
    sm_exec *exec;
    sm_error err;
    char text[16];
    assert_int_equal(sm_bell_make(&machine.ended, NULL), 0);
    assert_int_equal(sm_bell_make(&machine.passed, NULL), 0);
    assert_int_equal(
        begin(&a, script_last_words, &(sm_exec_config){.stdout_fd = SM_FD_PIPE}, &exec, NULL), 0);
    read_all(sm_exec_fd(exec, 1), text, sizeof(text));
    assert_string_equal(text, "last words");
    assert_int_equal(sm_exec_wait(exec, PATIENCE_MS, NULL, &err), -SM_EGUEST);
    assert_string_equal(err.message, "it has ended");
    sm_exec_close(exec);
    pthread_join(a.thread, NULL);
    sm_bell_close(&machine.ended);
    sm_bell_close(&machine.passed);
}

/* ---- input --------------------------------------------------------------------------------- */

#define ECHO_BYTES (3u << 20)

/* Sends back what it gets and grants as much again. */
static void script_echo(struct agent *a)
{
    start(a);
    size_t credit = SM_WIRE_STDIN_WINDOW;
    for (;;) {
        check(receive(a), "no end of input");
        if (a->frame.type == SM_WIRE_STDIN_EOF)
            break;
        check(a->frame.type == SM_WIRE_STDIN, "not input");
        check(a->frame.len <= credit, "more input than was granted");
        credit -= a->frame.len;
        put_data(a, SM_WIRE_STDOUT, a->frame.payload, a->frame.len);
        put(a, SM_WIRE_WINDOW, &(struct sm_wire_window){.bytes = a->frame.len});
        credit += a->frame.len;
    }
    end(a, 0);
}

struct writer {
    int fd;
    const uint8_t *data;
};

static void *write_all(void *arg)
{
    struct writer *w = arg;
    for (size_t n = 0; n < ECHO_BYTES;) {
        ssize_t did = write(w->fd, w->data + n, ECHO_BYTES - n);
        check(did > 0, "cannot write the input");
        n += (size_t)did;
    }
    close(w->fd);
    return NULL;
}

/* Through pipes or sockets, the reader slow: nothing is lost, nothing hangs. */
static void echo(bool sockets)
{
    struct agent a;
    sm_exec *exec;
    sm_exec_result r;
    uint8_t *data = malloc(ECHO_BYTES), *back = malloc(ECHO_BYTES);
    for (size_t i = 0; i < ECHO_BYTES; i++)
        data[i] = (uint8_t)(i * 31 + (i >> 8));
    int in[2], out[2];
    if (sockets) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, in), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, out), 0);
    } else {
        assert_int_equal(pipe(in), 0);
        assert_int_equal(pipe(out), 0);
    }
    const sm_exec_config config = {.stdin_fd = in[0], .stdout_fd = out[1]};
    assert_int_equal(begin(&a, script_echo, &config, &exec, NULL), 0);
    close(in[0]);
    close(out[1]);
    struct writer w = {.fd = in[1], .data = data};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_all, &w), 0);
    size_t n = 0;
    ssize_t got;
    while (n < ECHO_BYTES && (got = read(out[0], back + n, ECHO_BYTES - n)) > 0) {
        n += (size_t)got;
        if (n < ECHO_BYTES / 4)
            usleep(200);
    }
    assert_int_equal(n, ECHO_BYTES);
    assert_memory_equal(data, back, ECHO_BYTES);
    pthread_join(thread, NULL);
    finish(&a, exec, &r);
    close(out[0]);
    free(data);
    free(back);
}

static void test_echo(void **state)
{
    echo(false);
    echo(true);
}

/* Reads no input at all, but wants to be signalled. */
static void script_deaf(struct agent *a)
{
    start(a);
    size_t input = 0;
    for (;;) {
        check(receive(a), "connection ended");
        if (a->frame.type == SM_WIRE_SIGNAL)
            break;
        check(a->frame.type == SM_WIRE_STDIN, "not input");
        input += a->frame.len;
        check(input <= SM_WIRE_STDIN_WINDOW, "more input than was granted");
    }
    struct sm_wire_signal m;
    check(sm_wire_get_signal(&a->frame, &m) && m.signal == SIGINT && !m.group, "not SIGINT");
    expect(a, SM_WIRE_SIGNAL);
    check(sm_wire_get_signal(&a->frame, &m) && m.signal == SIGQUIT, "not the stop signal");
    put(a, SM_WIRE_EXIT, &(struct sm_wire_exit){.code = -1, .signal = SIGINT});
}

static void test_signals_pass_unread_input(void **state)
{
    struct agent a;
    sm_exec *exec;
    sm_exec_result r;
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_int_equal(begin(&a, script_deaf, &(sm_exec_config){.stdin_fd = zero}, &exec, NULL), 0);
    usleep(50000);
    assert_int_equal(sm_exec_signal(exec, 65, NULL), -SM_EINVAL);
    assert_int_equal(sm_exec_wait(exec, 0, &r, NULL), -SM_ETIMEOUT);
    assert_int_equal(sm_exec_signal(exec, SIGINT, NULL), 0);
    assert_int_equal(sm_exec_signal(exec, SM_SIGNAL_STOP, NULL), 0);
    finish(&a, exec, &r);
    assert_int_equal(r.signal, SIGINT);
    close(zero);
}

/* ---- back-pressure ------------------------------------------------------------------------- */

/* More on stdout than anybody buffers, then stderr, which must not wait for it: one frame of stdout
 * may be held back, the frames behind it must not be read. */
static void script_flood(struct agent *a)
{
    static uint8_t block[SM_WIRE_MAX_DATA];
    start(a);
    put_data(a, SM_WIRE_STDOUT, block, sizeof(block));
    put_data(a, SM_WIRE_STDERR, "first", 5);
    for (int i = 0; i < 40; i++)
        put_data(a, SM_WIRE_STDOUT, block, sizeof(block));
    put_data(a, SM_WIRE_STDERR, "last", 4);
    end(a, 0);
}

static void test_one_stream_does_not_stop_the_other(void **state)
{
    struct agent a;
    sm_exec *exec;
    sm_exec_result r;
    const sm_exec_config config = {.stdout_fd = SM_FD_PIPE, .stderr_fd = SM_FD_PIPE};
    assert_int_equal(begin(&a, script_flood, &config, &exec, NULL), 0);
    int out = sm_exec_fd(exec, 1), err = sm_exec_fd(exec, 2);
    char text[16] = "";
    assert_int_equal(read(err, text, 5), 5);
    assert_string_equal(text, "first");
    struct pollfd p = {.fd = err, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 100), 0); /* "last" is behind the flood that nobody reads */
    size_t n = 0;
    static char block[1 << 16];
    ssize_t got;
    while ((got = read(out, block, sizeof(block))) > 0)
        n += (size_t)got;
    assert_int_equal(n, 41 * SM_WIRE_MAX_DATA);
    read_all(err, text, sizeof(text));
    assert_string_equal(text, "last");
    close(out);
    finish(&a, exec, &r);
}

/* Writes for ever, until it is told that nobody reads. */
static void script_yes(struct agent *a)
{
    static uint8_t block[4096];
    start(a);
    struct pollfd p = {.fd = a->fd, .events = POLLIN};
    while (poll(&p, 1, 0) == 0)
        put_data(a, SM_WIRE_STDOUT, block, sizeof(block));
    expect(a, SM_WIRE_SIGNAL);
    struct sm_wire_signal m;
    check(sm_wire_get_signal(&a->frame, &m) && m.signal == SIGPIPE && m.group, "not SIGPIPE");
    for (int i = 0; i < 100; i++)
        put_data(a, SM_WIRE_STDOUT, block, sizeof(block)); /* on its way already: dropped */
    put(a, SM_WIRE_EXIT, &(struct sm_wire_exit){.code = -1, .signal = SIGPIPE});
}

static void test_reader_goes_away(void **state)
{
    for (int sockets = 0; sockets < 2; sockets++) {
        struct agent a;
        sm_exec *exec;
        sm_exec_result r;
        int out[2];
        assert_int_equal(sockets ? socketpair(AF_UNIX, SOCK_STREAM, 0, out) : pipe(out), 0);
        assert_int_equal(
            begin(&a, script_yes, &(sm_exec_config){.stdout_fd = out[1]}, &exec, NULL), 0);
        close(out[1]);
        char text[10];
        assert_int_equal(read(out[0], text, sizeof(text)), sizeof(text));
        close(out[0]);
        finish(&a, exec, &r);
        assert_int_equal(r.signal, SIGPIPE);
    }
}

/* ---- terminal ------------------------------------------------------------------------------ */

static void script_resize(struct agent *a)
{
    expect(a, SM_WIRE_EXEC);
    struct sm_wire_exec m;
    check(sm_wire_get_exec(&a->frame, &m), "EXEC is malformed");
    check(m.flags == (SM_WIRE_EXEC_TTY | SM_WIRE_EXEC_STDOUT), "flags of a terminal");
    put(a, SM_WIRE_STARTED, &(struct sm_wire_started){.pid = 2});
    expect(a, SM_WIRE_RESIZE);
    struct sm_wire_resize r;
    check(sm_wire_get_resize(&a->frame, &r) && r.rows == 50 && r.columns == 132, "size");
    end(a, 0);
}

static void test_resize(void **state)
{
    struct agent a;
    sm_exec *exec;
    sm_exec_result r;
    const sm_exec_config config = {.tty = true, .stdout_fd = SM_FD_PIPE, .stderr_fd = SM_FD_PIPE};
    assert_int_equal(begin(&a, script_resize, &config, &exec, NULL), 0);
    assert_int_equal(sm_exec_resize(exec, 50, 132, NULL), 0);
    finish(&a, exec, &r);

    assert_int_equal(begin(&a, script_killed, &(sm_exec_config){0}, &exec, NULL), 0);
    assert_int_equal(sm_exec_resize(exec, 50, 132, NULL), -SM_EINVAL);
    finish(&a, exec, &r);
}

/* ---- ends ---------------------------------------------------------------------------------- */

static void script_until_closed(struct agent *a)
{
    start(a);
    check(!receive(a), "nothing was to come");
}

static void test_close_ends_it(void **state)
{
    struct agent a;
    sm_exec *exec;
    assert_int_equal(begin(&a, script_until_closed, &(sm_exec_config){0}, &exec, NULL), 0);
    sm_exec_close(exec);
    pthread_join(a.thread, NULL);
}

static void test_bad_descriptors(void **state)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const sm_exec_config configs[] = {
        {.stdout_fd = 999},
        {.stdin_fd = 999},
        {.stdout_fd = null}, /* not for writing */
        {.stderr_fd = -7},
    };
    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
        int ends[2];
        struct sm_channel channel;
        sm_exec *exec = NULL;
        sm_error err = {0};
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        assert_int_equal(sm_channel_init(&channel, ends[0], NULL, NULL), 0);
        const struct sm_exec_request request = {
            .exec = {.user = "", .cwd = "", .argv = {.strv = command}}};
        assert_true(sm_exec_begin(&channel, &request, &configs[i], SIGTERM, &exec, &err) < 0);
        assert_null(exec);
        assert_non_null(strstr(err.message, "descriptor"));
        char byte;
        assert_int_equal(read(ends[1], &byte, 1), 0); /* closed, and nothing was sent */
        close(ends[1]);
    }
    close(null);
}

int main(void)
{
    alarm(PATIENCE_MS / 1000);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams_and_code),
        cmocka_unit_test(test_signal_result),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_a_failed_start_leaves_the_service),
        cmocka_unit_test(test_lost_connection),
        cmocka_unit_test(test_last_words_of_a_machine),
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_signals_pass_unread_input),
        cmocka_unit_test(test_one_stream_does_not_stop_the_other),
        cmocka_unit_test(test_reader_goes_away),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_close_ends_it),
        cmocka_unit_test(test_bad_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
