/* What a capture does where the guest does not answer. The agent is the other end of a socketpair,
 * and says only what a test has put there before; no machine is needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "util/error.h"
#include "vm/capture.h"
#include "vm/vm.h"

static int64_t limit_ms; /* of the last wait for the guest */
static int connects;

bool __wrap_sm_engine_is_paused(struct sm_engine *engine);
bool __wrap_sm_engine_is_paused(struct sm_engine *engine)
{
    return false;
}

/* What takes a second takes a millisecond. */
void __real_sm_guest_wait_begin(
    struct sm_guest_wait *w, const struct sm_guest_clock *clock, int64_t ms);
void __wrap_sm_guest_wait_begin(
    struct sm_guest_wait *w, const struct sm_guest_clock *clock, int64_t ms);
void __wrap_sm_guest_wait_begin(
    struct sm_guest_wait *w, const struct sm_guest_clock *clock, int64_t ms)
{
    limit_ms = ms;
    __real_sm_guest_wait_begin(w, clock, ms / 1000);
}

/* The guest takes no other connection. */
int __wrap_sm_channel_connect(struct sm_channel *channel, struct sm_engine *engine, sm_error *err);
int __wrap_sm_channel_connect(struct sm_channel *channel, struct sm_engine *engine, sm_error *err)
{
    connects++;
    return sm_error_set(err, SM_ETIMEOUT, "no connection");
}

/* A capture that fails, of a guest with that to say; returns the agent's end. */
static int capture(const void *said, size_t size)
{
    int ends[2];
    sm_error err;
    sm_image image = {0};
    sm_vm vm = {.image = &image,
        .name = "hung",
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .capturing = PTHREAD_RWLOCK_INITIALIZER};
    connects = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(send(ends[1], said, size, 0), (ssize_t)size);
    assert_int_equal(sm_channel_init(&vm.own, ends[0], NULL, &err), 0);
    assert_int_equal(sm_vm_snapshot(&vm, "/nonexistent/a.snap", NULL, &err), -SM_ETIMEOUT);
    return ends[1];
}

static void expect_frame(int agent, enum sm_wire_type type)
{
    uint8_t bytes[SM_WIRE_HEADER + 64];
    struct sm_wire_frame frame = {0};
    assert_int_equal(recv(agent, bytes, SM_WIRE_HEADER, MSG_WAITALL), SM_WIRE_HEADER);
    sm_wire_parse(bytes, SM_WIRE_HEADER, &frame);
    assert_string_equal(sm_wire_type_name(frame.type), sm_wire_type_name(type));
    assert_true(frame.len <= 64);
    assert_int_equal(recv(agent, bytes, frame.len, MSG_WAITALL), frame.len);
}

/* Its pid is not known, so a restore could not go on with it. */
static void a_command_that_was_not_taken_is_in_no_capture(void **state)
{
    sm_error err;
    sm_image image = {0};
    const sm_exec_config config = {0};
    sm_vm vm = {.image = &image,
        .name = "early",
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .capturing = PTHREAD_RWLOCK_INITIALIZER,
        .own = {.fd = -1},
        .command_config = &config};
    connects = 0;
    assert_int_equal(sm_vm_snapshot(&vm, "/nonexistent/a.snap", NULL, &err), -SM_EINVAL);
    assert_non_null(strstr(err.message, "was not taken yet"));
    assert_int_equal(connects, 0);
}

/* Whenever it comes to it, the guest reads that it shall go on; nobody waits for that. */
static void a_freeze_without_an_answer_is_taken_back(void **state)
{
    char more;
    int agent = capture("", 0);
    expect_frame(agent, SM_WIRE_FREEZE);
    expect_frame(agent, SM_WIRE_THAW);
    assert_int_equal(recv(agent, &more, 1, 0), 0);
    assert_int_equal(connects, 0);
    close(agent);
}

/* It is frozen, and then hangs. */
static void who_did_not_answer_is_not_waited_for_again(void **state)
{
    uint8_t ok[SM_WIRE_HEADER];
    struct sm_wire_writer w = {.buf = ok, .cap = sizeof(ok)};
    sm_wire_put_empty(&w, SM_WIRE_OK);
    close(capture(ok, w.len));
    assert_int_equal(connects, 2); /* for what listens, and for the thaw */
    assert_true(limit_ms <= 5000);
}

/* The answer lies in the connection that it came by, which is gone afterwards. */
static void what_listens_is_read_while_it_is_there(void **state)
{
    static const uint16_t ports[] = {80, 443};
    uint8_t records[2 * SM_WIRE_SOCKET_SIZE], frame[SM_WIRE_HEADER + 4 + sizeof(records)];
    struct sm_wire_writer w = {.buf = frame, .cap = sizeof(frame)};
    struct sm_capture capture = {0};
    sm_vm vm = {.name = "busy"};
    int ends[2];
    sm_error err;
    for (size_t i = 0; i < 2; i++) {
        const struct sm_wire_socket s = {
            .protocol = SM_WIRE_PROXY_TCP, .family = 4, .port = ports[i]};
        sm_wire_socket_store(records + i * SM_WIRE_SOCKET_SIZE, &s);
    }
    const struct sm_wire_sockets sockets = {.records = {.data = records, .len = sizeof(records)}};
    sm_wire_put(&w, SM_WIRE_SOCKETS, &sockets);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(send(ends[1], frame, w.len, 0), (ssize_t)w.len);
    assert_int_equal(sm_channel_init(&vm.own, ends[0], NULL, &err), 0);
    assert_int_equal(sm_capture_listeners(&capture, &vm, &err), 0);
    assert_int_equal(capture.n_listeners, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(capture.listeners[i].vm_port, ports[i]);
        assert_int_equal(capture.listeners[i].socktype, SOCK_STREAM);
    }
    sm_capture_clear(&capture);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_that_was_not_taken_is_in_no_capture),
        cmocka_unit_test(a_freeze_without_an_answer_is_taken_back),
        cmocka_unit_test(who_did_not_answer_is_not_waited_for_again),
        cmocka_unit_test(what_listens_is_read_while_it_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
