/* The agent's table of requests and the users of its connections, from within: every request there
 * is, each at the wrong time, a host that goes away in the middle of it, and no memory at any place
 * where some is asked for. */
#include "agent_util.h"
#include "patience.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conn.h"
#include "exec.h"
#include "requests.h"

#define FOREVER_MS 3600000u

static char dir[] = "/tmp/sm-agent-XXXXXX", path[64];

static int make_dir(void **state)
{
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/file", dir);
    return 0;
}

static int remove_dir(void **state)
{
    return rmdir(dir);
}

static unsigned files(void)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.' || strlen(e->d_name) > 2;
    closedir(d);
    return n;
}

/* Nothing is left of what the host had begun. */
static void expect_nothing(void)
{
    for (int ms = 0; exec_count() > 0 && ms < PATIENCE_MS; ms++) {
        agent_turns();
        usleep(1000);
    }
    agent_turns();
    assert_int_equal(exec_count(), 0);
    assert_int_equal(conn_count(), 0);
    assert_true(loop_is_idle());
    assert_int_equal(files(), 0);
}

/* A command that was just started may not have let go of its copy of our socket: the kernel wakes
 * who started it before it closes what is not to be handed on. */
static void hang_up(struct peer *p)
{
    shutdown(p->fd, SHUT_RDWR);
    peer_close(p);
    agent_turns();
}

static void ask(struct peer *p, enum sm_wire_type type, const void *m)
{
    peer_put(p, type, m);
    agent_turns();
}

static bool silent(const struct peer *p)
{
    struct pollfd pfd = {.fd = p->fd, .events = POLLIN};
    return p->used == p->have && poll(&pfd, 1, 0) == 0;
}

static void expect_pong(void)
{
    struct peer *p = peer_here();
    ask(p, SM_WIRE_PING, &(struct sm_wire_ping){.cookie = 1});
    peer_expect(p, SM_WIRE_PONG, NULL);
    hang_up(p);
}

/* ---- every request ------------------------------------------------------------------------ */

static const uint8_t seed[16] = {1};

static const struct sm_wire_exec run_true = {.argv = ARGV("true"), .flags = EXEC_STREAMS};
static const struct sm_wire_exec run_long = {.argv = ARGV("sleep", "1000"), .flags = EXEC_STREAMS};
static const struct sm_wire_write_file write_some = {.path = path, .mode = 0600, .size = 3};
static const struct sm_wire_freeze freeze = {.timeout_ms = FOREVER_MS};

/* One that is answered without anything else happening. */
static const struct {
    enum sm_wire_type type;
    const void *m;
    enum sm_wire_type answer;
} requests[] = {
    {SM_WIRE_PING, &(struct sm_wire_ping){.cookie = 1}, SM_WIRE_PONG},
    {SM_WIRE_EXEC, &run_true, SM_WIRE_STARTED},
    {SM_WIRE_ATTACH, &(struct sm_wire_attach){.pid = 1}, SM_WIRE_ERROR},
    {SM_WIRE_WRITE_FILE, &(struct sm_wire_write_file){.path = "relative"}, SM_WIRE_ERROR},
    {SM_WIRE_READ_FILE, &(struct sm_wire_read_file){.path = "/proc/self/comm", .max = 99},
        SM_WIRE_FILE},
    {SM_WIRE_SET_CLOCK, &(struct sm_wire_set_clock){.realtime_ns = 1}, SM_WIRE_OK},
    {SM_WIRE_ADD_ENTROPY, &(struct sm_wire_add_entropy){.seed = {seed, 16}}, SM_WIRE_OK},
    {SM_WIRE_SET_IDENTITY, &(struct sm_wire_set_identity){.hostname = "h"}, SM_WIRE_OK},
    {SM_WIRE_RESTORE, &(struct sm_wire_restore){.seed = {seed, 16}}, SM_WIRE_OK},
    {SM_WIRE_LISTENERS, NULL, SM_WIRE_SOCKETS},
    {SM_WIRE_WAIT_LISTEN, &(struct sm_wire_wait_listen){.port = 65536}, SM_WIRE_ERROR},
    {SM_WIRE_WAIT_IDLE, &(struct sm_wire_wait_idle){.timeout_ms = 0}, SM_WIRE_ERROR},
    {SM_WIRE_FREEZE, &(struct sm_wire_freeze){.timeout_ms = 0}, SM_WIRE_ERROR},
    {SM_WIRE_THAW, NULL, SM_WIRE_OK},
    {SM_WIRE_WATCH, NULL, SM_WIRE_SOCKETS},
    {SM_WIRE_SET_NETWORK, &(struct sm_wire_set_network){.mac = {seed, 6}}, SM_WIRE_OK},
};
#define N_REQUESTS (sizeof(requests) / sizeof(requests[0]))

static void every_request_has_its_answer(void **state)
{
    for (size_t i = 0; i < N_REQUESTS; i++) {
        struct peer *p = peer_here();
        ask(p, requests[i].type, requests[i].m);
        peer_expect(p, requests[i].answer, NULL);
        hang_up(p);
        expect_nothing();
    }
    struct peer *p = peer_here();
    peer_put(p, SM_WIRE_POWER_OFF, NULL);
    shutdown(p->fd, SHUT_WR); /* as a host that has seen the answer */
    agent_turns();
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_expect_end(p);
    hang_up(p);
}

static bool is_request(unsigned type)
{
    for (size_t i = 0; i < N_REQUESTS; i++)
        if (requests[i].type == type)
            return true;
    return type == SM_WIRE_POWER_OFF;
}

static void what_is_no_request_is_refused(void **state)
{
    for (unsigned type = 0; type < 0x100; type++) {
        uint8_t header[SM_WIRE_HEADER];
        if (is_request(type))
            continue;
        struct peer *p = peer_here();
        sm_wire_data_header(header, (enum sm_wire_type)type, 0);
        peer_send(p, header, sizeof(header));
        agent_turns();
        peer_expect_error(p, SM_WIRE_E_PROTOCOL);
        hang_up(p);
    }
}

/* ---- users of a connection ---------------------------------------------------------------- */

static void in_a_frame(struct peer *p)
{
    peer_send(p, "\x08\0\0\0\x10", 5);
}

static void in_a_command(struct peer *p)
{
    peer_put(p, SM_WIRE_EXEC, &run_long);
    agent_turns();
    peer_expect(p, SM_WIRE_STARTED, NULL);
}

static void in_a_written_file(struct peer *p)
{
    peer_put(p, SM_WIRE_WRITE_FILE, &write_some);
    agent_turns();
    assert_int_equal(files(), 1);
}

/* More than the socket takes. */
static void in_a_read_file(struct peer *p)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, 8 << 20), 0);
    close(fd);
    peer_put(p, SM_WIRE_READ_FILE, &(struct sm_wire_read_file){.path = path, .max = 8 << 20});
    agent_turns();
    assert_int_equal(unlink(path), 0);
}

static void waiting_for_a_listener(struct peer *p)
{
    peer_put(
        p, SM_WIRE_WAIT_LISTEN, &(struct sm_wire_wait_listen){.port = 1, .timeout_ms = FOREVER_MS});
}

static void waiting_for_idleness(struct peer *p)
{
    peer_put(p, SM_WIRE_WAIT_IDLE,
        &(struct sm_wire_wait_idle){.quiet_ms = FOREVER_MS, .timeout_ms = FOREVER_MS});
}

static void waiting_for_a_standstill(struct peer *p)
{
    peer_put(p, SM_WIRE_FREEZE, &freeze);
}

static void watching(struct peer *p)
{
    peer_put(p, SM_WIRE_WATCH, NULL);
    agent_turns();
    peer_expect(p, SM_WIRE_SOCKETS, NULL);
}

static void (*const users[])(struct peer *p) = {in_a_frame, in_a_command, in_a_written_file,
    in_a_read_file, waiting_for_a_listener, waiting_for_idleness, waiting_for_a_standstill,
    watching};
#define N_USERS (sizeof(users) / sizeof(users[0]))

static void a_host_that_goes_away_leaves_nothing(void **state)
{
    struct fake_system *system = *state;
    for (size_t i = 0; i < N_USERS; i++) {
        struct peer *p = peer_here();
        users[i](p);
        agent_turns();
        assert_int_equal(conn_count(), 1);
        hang_up(p);
        expect_nothing();
    }
    assert_int_equal(system->freezes, 1);
    assert_int_equal(system->thaws, 1);
}

/* Two in the same state: the end of one is not that of the other. */
static void one_that_is_lost_is_not_the_other(void **state)
{
    for (size_t i = 0; i < N_USERS; i++) {
        if (users[i] == in_a_written_file) /* whose path can be taken once */
            continue;
        struct peer *one = peer_here(), *two = peer_here();
        users[i](one);
        users[i](two);
        agent_turns();
        hang_up(one);
        assert_int_equal(conn_count(), 1);
        expect_pong();
        hang_up(two);
        expect_nothing();
    }
}

static void a_request_at_the_wrong_time(void **state)
{
    struct fake_system *system = *state;
    static void (*const refuse[])(
        struct peer *) = {in_a_command, in_a_written_file},
                    (*const wait[])(struct peer *) = {
                        waiting_for_a_listener, waiting_for_idleness, watching};
    for (size_t i = 0; i < 2; i++) {
        struct peer *p = peer_here();
        refuse[i](p);
        ask(p, SM_WIRE_PING, &(struct sm_wire_ping){.cookie = 1});
        peer_expect_error(p, SM_WIRE_E_PROTOCOL);
        hang_up(p);
        expect_nothing();
    }
    for (size_t i = 0; i < 3; i++) {
        struct peer *p = peer_here();
        wait[i](p);
        agent_turns();
        ask(p, SM_WIRE_PING, &(struct sm_wire_ping){.cookie = 1});
        assert_true(silent(p));
        hang_up(p);
        expect_nothing();
    }
    /* What has waited is answered when its time has come. */
    struct peer *p = peer_here();
    waiting_for_a_standstill(p);
    ask(p, SM_WIRE_PING, &(struct sm_wire_ping){.cookie = 1});
    assert_true(silent(p));
    system->frozen = 1;
    for (int ms = 0; silent(p) && ms < PATIENCE_MS; ms++) {
        usleep(1000);
        agent_turns();
    }
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_expect(p, SM_WIRE_PONG, NULL);
    ask(p, SM_WIRE_THAW, NULL);
    peer_expect(p, SM_WIRE_OK, NULL);
    hang_up(p);
}

/* ---- no memory ---------------------------------------------------------------------------- */

/* A request, for which the first `allocs` buffers can be had. */
static struct peer *ask_with(
    struct fake_system *system, int allocs, enum sm_wire_type type, const void *m)
{
    int accepted;
    struct peer *p = peer_before(&accepted);
    loop_exit(); /* those that are kept, too */
    assert_int_equal(requests_init(), 0);
    peer_put(p, type, m);
    system->allocs = allocs;
    conn_serve(accepted);
    agent_turns();
    return p;
}

static void expect_served_again(struct fake_system *system, struct peer *p)
{
    system->allocs = -1;
    hang_up(p);
    expect_nothing();
    expect_pong();
}

static void without_memory_a_request_ends_alone(void **state)
{
    struct fake_system *system = *state;
    for (size_t i = 0; i < N_REQUESTS; i++)
        for (int allocs = 0; allocs < 4; allocs++)
            expect_served_again(system, ask_with(system, allocs, requests[i].type, requests[i].m));
}

static void without_memory_users_end(void **state)
{
    struct fake_system *system = *state;
    const struct sm_wire_exec as_app = {
        .argv = ARGV("true"), .user = "daemon", .flags = EXEC_STREAMS};
    for (int allocs = 0; allocs < 4; allocs++) {
        expect_served_again(system, ask_with(system, allocs, SM_WIRE_WRITE_FILE, &write_some));
        expect_served_again(system, ask_with(system, allocs, SM_WIRE_EXEC, &as_app));
        system->frozen = 1;
        struct peer *p = ask_with(system, allocs, SM_WIRE_FREEZE, &freeze);
        system->frozen = 0;
        expect_served_again(system, p);
    }
}

/* Takes all buffers that are kept, by frames that do not end; returns how many took one. */
static unsigned take_buffers(struct peer *takers[], unsigned max)
{
    unsigned n = 0;
    for (unsigned before = conn_count(); n < max; n++) {
        int accepted;
        takers[n] = peer_before(&accepted);
        in_a_frame(takers[n]);
        conn_serve(accepted);
        agent_turns();
        if (conn_count() == before + n) {
            peer_close(takers[n]);
            return n;
        }
    }
    fail_msg("more buffers are kept than %u", max);
    return n;
}

/* Input that the command does not take has no place to wait. */
static void without_memory_for_its_stdin_a_command_ends(void **state)
{
    static uint8_t data[SM_WIRE_HEADER + SM_WIRE_STDIN_WINDOW];
    struct fake_system *system = *state;
    struct peer *takers[8], *p = peer_here();
    in_a_command(p);
    sm_wire_data_header(data, SM_WIRE_STDIN, SM_WIRE_STDIN_WINDOW);
    peer_send(p, data, sizeof(data)); /* as much as the pipe takes */
    agent_turns();
    peer_expect(p, SM_WIRE_WINDOW, NULL);
    system->allocs = 0;
    unsigned n = take_buffers(takers, 8);
    system->allocs = 1; /* for the frame */
    peer_send(p, data, sizeof(data));
    agent_turns();
    peer_expect_end(p);
    while (n > 0)
        hang_up(takers[--n]);
    expect_served_again(system, p);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, agent_here, agent_here_ends)
    const struct CMUnitTest tests[] = {
        TEST(every_request_has_its_answer),
        TEST(what_is_no_request_is_refused),
        TEST(a_host_that_goes_away_leaves_nothing),
        TEST(one_that_is_lost_is_not_the_other),
        TEST(a_request_at_the_wrong_time),
        TEST(without_memory_a_request_ends_alone),
        TEST(without_memory_users_end),
        TEST(without_memory_for_its_stdin_a_command_ends),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
