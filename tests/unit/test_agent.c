/* The agent's requests other than commands: see test_agent_exec.c for those. */
#include "agent_util.h"
#include "patience.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "clone.h"
#include "directory.h"
#include "host.h"

#define SEED_LEN   32
#define MACHINE_ID "0123456789abcdef0123456789abcdef"

static const uint8_t seed[SEED_LEN] = {1, 2, 3};

static const struct sm_wire_restore good_restore = {
    .realtime_ns = 1700000000123456789u,
    .seed = {.data = seed, .len = SEED_LEN},
    .hostname = "clone-7",
    .machine_id = MACHINE_ID,
};

static void ping_tells_the_boot_and_counts(void **state)
{
    struct peer *p = peer_open(*state);
    struct sm_wire_pong one, two;
    peer_put(p, SM_WIRE_PING, &(struct sm_wire_ping){.cookie = 42});
    peer_expect(p, SM_WIRE_PONG, &one);
    peer_put(p, SM_WIRE_PING, &(struct sm_wire_ping){.cookie = 43});
    peer_expect(p, SM_WIRE_PONG, &two);
    assert_int_equal(one.cookie, 42);
    assert_int_equal(two.cookie, 43);
    assert_true(one.boot_nonce == 0x1234567890abcdefu && two.boot_nonce == one.boot_nonce);
    assert_int_equal(two.ticks, one.ticks + 1);
    assert_true(two.monotonic_ns > one.monotonic_ns);
    peer_close(p);
}

static void requests_are_answered_in_order_without_waiting(void **state)
{
    struct peer *p = peer_open(*state);
    static uint8_t buf[65536];
    struct sm_wire_writer w = {.buf = buf, .cap = sizeof(buf)};
    for (uint64_t i = 0; i < 1000; i++)
        sm_wire_put_ping(&w, &(struct sm_wire_ping){.cookie = i});
    assert_false(w.failed);
    peer_send(p, buf, w.len);
    for (uint64_t i = 0; i < 1000; i++) {
        struct sm_wire_pong pong;
        peer_expect(p, SM_WIRE_PONG, &pong);
        assert_int_equal(pong.cookie, i);
    }
    peer_close(p);
}

static void a_request_may_come_byte_by_byte(void **state)
{
    struct peer *p = peer_open(*state);
    uint8_t buf[64];
    struct sm_wire_writer w = {.buf = buf, .cap = sizeof(buf)};
    struct sm_wire_pong pong;
    sm_wire_put_ping(&w, &(struct sm_wire_ping){.cookie = 5});
    for (size_t i = 0; i < w.len; i++)
        peer_send(p, buf + i, 1);
    peer_expect(p, SM_WIRE_PONG, &pong);
    assert_int_equal(pong.cookie, 5);
    peer_close(p);
}

static void restore_and_exec_in_one_write(void **state)
{
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    uint8_t buf[2048];
    struct sm_wire_writer w = {.buf = buf, .cap = sizeof(buf)};
    struct run r = {.exec = {.argv = SHELL("echo $HOSTNAME"), .flags = EXEC_STREAMS}};
    sm_wire_put_restore(&w, &good_restore);
    sm_wire_put_exec(&w, &r.exec);
    assert_false(w.failed);
    peer_send(p, buf, w.len);
    peer_expect(p, SM_WIRE_OK, NULL);
    run_streams(p, &r);
    assert_string_equal(r.out, "clone-7\n");
    assert_true(t->system->realtime_ns == good_restore.realtime_ns);
    assert_int_equal(t->system->seed_len, SEED_LEN);
    assert_string_equal(t->system->hostname, "clone-7");
    assert_string_equal(t->system->machine_id, MACHINE_ID);
    run_free(&r);
    peer_close(p);
}

static void a_restore_that_fails_runs_nothing(void **state)
{
    struct agent_test *t = *state;
    int *const knobs[] = {
        &t->system->fail_clock, &t->system->fail_entropy, &t->system->fail_identity};
    char marker[128];
    snprintf(marker, sizeof(marker), "%s/ran", t->dir);
    for (size_t i = 0; i < 3; i++) {
        struct peer *p = peer_open(t);
        uint8_t buf[2048];
        struct sm_wire_writer w = {.buf = buf, .cap = sizeof(buf)};
        struct sm_wire_exec exec = {.argv = ARGV("touch", marker)};
        struct sm_wire_error e;
        *knobs[i] = EPERM;
        sm_wire_put_restore(&w, &good_restore);
        sm_wire_put_exec(&w, &exec);
        peer_send(p, buf, w.len);
        peer_expect(p, SM_WIRE_ERROR, &e);
        assert_int_equal(e.kind, SM_WIRE_E_INTERNAL);
        assert_int_equal(e.errnum, EPERM);
        peer_expect_end(p);
        peer_close(p);
        *knobs[i] = 0;
        assert_int_equal(access(marker, F_OK), -1);
    }
}

static void identity_is_checked_before_anything_is_done(void **state)
{
    struct agent_test *t = *state;
    struct sm_wire_restore bad[4] = {good_restore, good_restore, good_restore, good_restore};
    bad[0].seed.len = 0;
    bad[1].machine_id = "0123";
    bad[2].machine_id = "0123456789ABCDEF0123456789ABCDEF";
    bad[3].hostname = "a/b";
    for (size_t i = 0; i < 4; i++) {
        struct peer *p = peer_open(t);
        peer_put(p, SM_WIRE_RESTORE, &bad[i]);
        peer_expect_error(p, SM_WIRE_E_BAD_VALUE);
        peer_close(p);
    }
    assert_int_equal(t->system->calls, 0);
}

static void single_steps_of_a_restore(void **state)
{
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    peer_put(p, SM_WIRE_SET_CLOCK, &(struct sm_wire_set_clock){.realtime_ns = 77});
    peer_expect(p, SM_WIRE_OK, NULL);
    assert_int_equal(t->system->realtime_ns, 77);
    peer_put(p, SM_WIRE_ADD_ENTROPY, &(struct sm_wire_add_entropy){.seed = {seed, 16}});
    peer_expect(p, SM_WIRE_OK, NULL);
    assert_int_equal(t->system->seed_len, 16);
    peer_put(p, SM_WIRE_SET_IDENTITY, &(struct sm_wire_set_identity){.hostname = "h"});
    peer_expect(p, SM_WIRE_OK, NULL);
    assert_string_equal(t->system->hostname, "h");
    assert_string_equal(t->system->machine_id, "");
    peer_close(p);
}

static void a_network_is_set_before_the_restore(void **state)
{
    struct agent_test *t = *state;
    const struct sm_wire_set_network good = {.mac = {seed, 6},
        .mtu = 1500,
        .address4 = {seed, 4},
        .prefix4 = 24,
        .resolv_conf = "nameserver 10.0.2.3\n"};
    uint8_t buf[2048];
    struct sm_wire_writer w = {.buf = buf, .cap = sizeof(buf)};
    sm_wire_put_set_network(&w, &good);
    sm_wire_put_restore(&w, &good_restore);
    struct peer *p = peer_open(t);
    peer_send(p, buf, w.len);
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_close(p);
    assert_int_equal(t->system->mtu, 1500);
    assert_string_equal(t->system->resolver, good.resolv_conf);
    assert_int_equal(t->system->hosts, 1);

    t->system->calls = 0;
    struct sm_wire_set_network bad[4] = {good, good, good, good};
    bad[0].mac.len = 5;
    bad[1].address4.len = 3;
    bad[2].prefix4 = 33;
    bad[3].gateway6 = (struct sm_wire_bytes){seed, 4};
    for (size_t i = 0; i < 4; i++) {
        p = peer_open(t);
        peer_put(p, SM_WIRE_SET_NETWORK, &bad[i]);
        peer_expect_error(p, SM_WIRE_E_BAD_VALUE);
        peer_close(p);
    }
    assert_int_equal(t->system->calls, 0);

    /* Without a card's address the card stays. */
    p = peer_open(t);
    peer_put(p, SM_WIRE_SET_NETWORK, &(struct sm_wire_set_network){.resolv_conf = "search a\n"});
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_close(p);
    assert_string_equal(t->system->resolver, "search a\n");
    assert_int_equal(t->system->hosts, 1);
    assert_int_equal(t->system->mtu, 1500);
    assert_int_equal(t->system->calls, 1);
    t->system->calls = 0;

    /* What fails ends it: nothing of the restore is done. */
    t->system->fail_network = ENETUNREACH;
    p = peer_open(t);
    peer_send(p, buf, w.len);
    peer_expect_error(p, SM_WIRE_E_INTERNAL);
    peer_close(p);
    assert_int_equal(t->system->calls, 1);
}

/* ---- idle --------------------------------------------------------------------------------- */

/* As /proc/uptime: seconds since boot, and seconds that all CPUs together were idle. */
static void write_uptime(int fd, double up, double idle)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "%.2f %.2f\n", up, idle);
    assert_int_equal(pwrite(fd, text, (size_t)n, 0), n);
}

static void idle_is_when_the_cpus_rest(void **state)
{
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    struct pollfd pfd = {.fd = p->fd, .events = POLLIN};
    cpu_set_t cpus;
    char path[96];
    double up = 100, idle = 50;
    assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
    snprintf(path, sizeof(path), "%s/uptime", t->dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    write_uptime(fd, up, idle);
    peer_put(p, SM_WIRE_WAIT_IDLE,
        &(struct sm_wire_wait_idle){.quiet_ms = 200, .timeout_ms = PATIENCE_MS});
    /* One CPU is busy, for a second and a half: no answer. */
    for (int i = 0; i < 15; i++) {
        write_uptime(fd, up += 0.1, idle += 0.1 * (CPU_COUNT(&cpus) - 1));
        assert_int_equal(poll(&pfd, 1, 100), 0);
    }
    /* Nearly all at rest: an answer, as soon as a whole look saw nothing else. */
    int i = 0;
    do
        write_uptime(fd, up += 0.1, idle += 0.1 * CPU_COUNT(&cpus) - 0.001);
    while (poll(&pfd, 1, 100) == 0 && ++i < PATIENCE_MS / 100);
    peer_expect(p, SM_WIRE_OK, NULL);

    /* The wait is bounded. */
    peer_put(p, SM_WIRE_WAIT_IDLE, &(struct sm_wire_wait_idle){.quiet_ms = 200, .timeout_ms = 300});
    peer_expect_error(p, SM_WIRE_E_TIMEOUT);
    peer_close(p);
    close(fd);
}

/* ---- freezing ----------------------------------------------------------------------------- */

static void restore_thaws_what_was_frozen_once(void **state)
{
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    t->system->frozen = 1;
    peer_put(p, SM_WIRE_FREEZE, &(struct sm_wire_freeze){.timeout_ms = PATIENCE_MS});
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_close(p); /* as a capture does; what is frozen stays so */

    p = peer_open(t);
    t->system->fail_identity = EPERM;
    peer_put(p, SM_WIRE_RESTORE, &good_restore);
    peer_expect_error(p, SM_WIRE_E_INTERNAL);
    peer_close(p);
    assert_int_equal(t->system->freezes, 1);
    assert_int_equal(t->system->thaws, 0);

    p = peer_open(t);
    t->system->fail_identity = 0;
    peer_put(p, SM_WIRE_RESTORE, &good_restore);
    peer_expect(p, SM_WIRE_OK, NULL);
    assert_int_equal(t->system->thaws, 1);
    peer_put(p, SM_WIRE_RESTORE, &good_restore);
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_put(p, SM_WIRE_THAW, NULL);
    peer_expect(p, SM_WIRE_OK, NULL);
    assert_int_equal(t->system->thaws, 1);
    peer_close(p);
}

/* Not for as long as the start of one may take: nothing else would be answered meanwhile. */
static void while_all_is_frozen_no_command_begins(void **state)
{
    static const char *const argv[] = {"/bin/true", NULL};
    const struct sm_wire_exec exec = {.argv.strv = argv};
    struct agent_test *t = *state;
    struct peer *freezer = peer_open(t), *p = peer_open(t);
    peer_put(freezer, SM_WIRE_FREEZE, &(struct sm_wire_freeze){.timeout_ms = PATIENCE_MS});
    for (int ms = 0; t->system->freezes < 1 && ms < PATIENCE_MS; ms++)
        usleep(1000);
    peer_put(p, SM_WIRE_EXEC, &exec); /* it is being frozen */
    peer_expect_error(p, SM_WIRE_E_INTERNAL);
    peer_close(p);

    t->system->frozen = 1;
    peer_expect(freezer, SM_WIRE_OK, NULL);
    p = peer_open(t);
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect_error(p, SM_WIRE_E_INTERNAL);
    peer_close(p);

    peer_put(freezer, SM_WIRE_THAW, NULL);
    peer_expect(freezer, SM_WIRE_OK, NULL);
    peer_close(freezer);
    p = peer_open(t);
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect(p, SM_WIRE_STARTED, NULL);
    peer_close(p);
}

static void without_processes_nothing_is_frozen_or_thawed(void **state)
{
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    t->system->nobody = true;
    peer_put(p, SM_WIRE_FREEZE, &(struct sm_wire_freeze){.timeout_ms = PATIENCE_MS});
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_put(p, SM_WIRE_RESTORE, &good_restore);
    peer_expect(p, SM_WIRE_OK, NULL);
    assert_int_equal(t->system->freezes, 1);
    assert_int_equal(t->system->thaws, 0);
    peer_close(p);
}

static void freezing_takes_its_time_but_not_more(void **state)
{
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    peer_put(p, SM_WIRE_FREEZE, &(struct sm_wire_freeze){.timeout_ms = PATIENCE_MS});
    usleep(100000);
    t->system->frozen = 1;
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_put(p, SM_WIRE_THAW, NULL);
    peer_expect(p, SM_WIRE_OK, NULL);
    assert_int_equal(t->system->thaws, 1);

    t->system->frozen = 0;
    peer_put(p, SM_WIRE_FREEZE, &(struct sm_wire_freeze){.timeout_ms = 100});
    peer_expect_error(p, SM_WIRE_E_TIMEOUT);
    peer_close(p);
    assert_int_equal(t->system->thaws, 2); /* all goes on as if nothing had been */

    p = peer_open(t); /* nor does it last when the host goes away before its answer */
    peer_put(p, SM_WIRE_FREEZE, &(struct sm_wire_freeze){.timeout_ms = PATIENCE_MS});
    for (int ms = 0; t->system->freezes < 3 && ms < PATIENCE_MS; ms++)
        usleep(1000);
    peer_close(p);
    for (int ms = 0; t->system->thaws < 3 && ms < PATIENCE_MS; ms++)
        usleep(1000);
    assert_int_equal(t->system->freezes, 3);
    assert_int_equal(t->system->thaws, 3);

    p = peer_open(t);
    t->system->fail_freeze = ENOENT;
    peer_put(p, SM_WIRE_FREEZE, &(struct sm_wire_freeze){.timeout_ms = 100});
    peer_expect_error(p, SM_WIRE_E_INTERNAL);
    peer_close(p);
    assert_int_equal(t->system->thaws, 4);
}

/* An agent that gets no CPU between two looks has not waited meanwhile. */
static void time_without_a_cpu_is_not_waited(void **state)
{
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    t->system->stall_ms = 900;
    t->system->looks_to_freeze = 4;
    peer_put(p, SM_WIRE_FREEZE, &(struct sm_wire_freeze){.timeout_ms = 300});
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_close(p);
    assert_int_equal(t->system->looks, 4);
}

/* ---- files -------------------------------------------------------------------------------- */

static void write_file(
    struct peer *p, const char *path, const void *data, size_t size, uint32_t mode)
{
    struct sm_wire_write_file m = {
        .path = path, .mode = mode, .uid = getuid(), .gid = getgid(), .size = size};
    peer_put(p, SM_WIRE_WRITE_FILE, &m);
    for (size_t done = 0; done < size;) {
        uint8_t header[SM_WIRE_HEADER];
        size_t n = size - done > 50000 ? 50000 : size - done;
        sm_wire_data_header(header, SM_WIRE_DATA, (uint32_t)n);
        peer_send(p, header, sizeof(header));
        peer_send(p, (const uint8_t *)data + done, n);
        done += n;
    }
}

static unsigned files_in(const char *dir)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void a_file_comes_back_as_it_was_written(void **state)
{
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    char path[128];
    size_t size = 300001;
    uint8_t *data = malloc(size), *back = malloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    snprintf(path, sizeof(path), "%s/file", t->dir);
    const uint32_t mode =
        getuid() == 0 ? 04751
                      : 0751; /* the kernel takes the first from others when they change owners */
    write_file(p, path, data, size, mode);
    peer_expect(p, SM_WIRE_OK, NULL);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, mode);
    assert_int_equal(st.st_size, size);

    peer_put(p, SM_WIRE_READ_FILE, &(struct sm_wire_read_file){.path = path, .max = size});
    struct sm_wire_file file;
    peer_expect(p, SM_WIRE_FILE, &file);
    assert_int_equal(file.size, size);
    assert_int_equal(file.mode, mode);
    size_t have = 0;
    for (struct sm_wire_frame f;;) {
        assert_true(peer_next(p, &f));
        if (f.type == SM_WIRE_OK)
            break;
        assert_int_equal(f.type, SM_WIRE_DATA);
        assert_true(have + f.len <= size);
        memcpy(back + have, f.payload, f.len);
        have += f.len;
    }
    assert_int_equal(have, size);
    assert_memory_equal(data, back, size);
    peer_close(p);
    free(data);
    free(back);
}

/* The reader's socket takes three frames at least, and all of them at once if it keeps up. */
static void a_file_has_one_frame_a_turn(void **state)
{
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    size_t size = 3 * SM_WIRE_MAX_DATA;
    uint8_t *data = calloc(1, size);
    char path[128];
    snprintf(path, sizeof(path), "%s/file", t->dir);
    write_file(p, path, data, size, 0600);
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_put(p, SM_WIRE_READ_FILE, &(struct sm_wire_read_file){.path = path, .max = size});
    peer_expect(p, SM_WIRE_FILE, NULL);
    for (struct sm_wire_frame f = {.type = SM_WIRE_DATA}; f.type == SM_WIRE_DATA;)
        assert_true(peer_next(p, &f));
    assert_int_equal(t->system->most_sent, 1);
    peer_close(p);
    free(data);
}

static void an_empty_file_and_one_of_proc(void **state)
{
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    struct sm_wire_frame f;
    char path[128];
    snprintf(path, sizeof(path), "%s/empty", t->dir);
    write_file(p, path, "", 0, 0600);
    peer_expect(p, SM_WIRE_OK, NULL);
    assert_int_equal(access(path, F_OK), 0);
    peer_put(p, SM_WIRE_READ_FILE, &(struct sm_wire_read_file){.path = path, .max = 0});
    peer_expect(p, SM_WIRE_FILE, NULL);
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_put(
        p, SM_WIRE_READ_FILE, &(struct sm_wire_read_file){.path = "/proc/self/comm", .max = 99});
    peer_expect(p, SM_WIRE_FILE, NULL);
    assert_true(peer_next(p, &f));
    assert_int_equal(f.type, SM_WIRE_DATA);
    assert_memory_equal(f.payload, "test_agent\n", 11);
    peer_expect(p, SM_WIRE_OK, NULL);
    peer_close(p);
}

static void files_that_cannot_be_read(void **state)
{
    struct agent_test *t = *state;
    static const struct {
        struct sm_wire_read_file m;
        enum sm_wire_error_kind kind;
    } cases[] = {
        {{.path = "/no/such/file", .max = 10}, SM_WIRE_E_NOT_FOUND},
        {{.path = "relative", .max = 10}, SM_WIRE_E_INTERNAL},
        {{.path = "/tmp", .max = 10}, SM_WIRE_E_BAD_VALUE},
        {{.path = "/dev/zero", .max = 10}, SM_WIRE_E_BAD_VALUE},
        {{.path = "/proc/self/exe", .max = 10}, SM_WIRE_E_TOO_BIG},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct peer *p = peer_open(t);
        peer_put(p, SM_WIRE_READ_FILE, &cases[i].m);
        peer_expect_error(p, cases[i].kind);
        peer_close(p);
    }
    struct peer *p = peer_open(t);
    peer_put(
        p, SM_WIRE_READ_FILE, &(struct sm_wire_read_file){.path = "/proc/self/status", .max = 9});
    peer_expect(p, SM_WIRE_FILE, NULL);
    peer_expect_error(p, SM_WIRE_E_TOO_BIG);
    peer_close(p);
}

static void a_file_is_replaced_whole_or_not_at_all(void **state)
{
    struct agent_test *t = *state;
    char dir[80], path[128], text[16] = "";
    snprintf(dir, sizeof(dir), "%s/d", t->dir);
    snprintf(path, sizeof(path), "%s/file", dir);
    assert_int_equal(mkdir(dir, 0755), 0);

    struct peer *p = peer_open(t);
    write_file(p, path, "old", 3, 0644);
    peer_expect(p, SM_WIRE_OK, NULL);
    /* Half of the new contents, and then the connection is gone. */
    struct sm_wire_write_file m = {
        .path = path, .mode = 0644, .uid = getuid(), .gid = getgid(), .size = 6};
    peer_put(p, SM_WIRE_WRITE_FILE, &m);
    peer_send(p, "\3\0\0\0\x67\0\0\0new", 11);
    for (int i = 0; i < PATIENCE_MS / 10 && files_in(dir) != 2; i++)
        usleep(10000);
    assert_int_equal(files_in(dir), 2);
    peer_close(p);
    for (int i = 0; i < PATIENCE_MS / 10 && files_in(dir) != 1; i++)
        usleep(10000);
    assert_int_equal(files_in(dir), 1);
    FILE *f = fopen(path, "r");
    assert_non_null(fgets(text, sizeof(text), f));
    fclose(f);
    assert_string_equal(text, "old");

    p = peer_open(t); /* more than was announced */
    m.size = 2;
    peer_put(p, SM_WIRE_WRITE_FILE, &m);
    peer_send(p, "\3\0\0\0\x67\0\0\0new", 11);
    peer_expect_error(p, SM_WIRE_E_INTERNAL);
    peer_close(p);
    assert_int_equal(files_in(dir), 1);

    p = peer_open(t);
    m.path = "/no/such/dir/file";
    peer_put(p, SM_WIRE_WRITE_FILE, &m);
    peer_expect_error(p, SM_WIRE_E_NOT_FOUND);
    peer_close(p);
}

/* ---- hostile or broken hosts -------------------------------------------------------------- */

static void what_is_no_request_ends_the_connection_only(void **state)
{
    struct agent_test *t = *state;
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {"\0\0\0\0\xff\0\0\0", 8},             /* no such type */
        {"\xff\xff\xff\xff\x10\0\0\0", 8},     /* longer than a PING can be */
        {"\0\0\0\0\x19\0\1\0", 8},             /* flags */
        {"\1\0\0\0\x10\0\0\0x", 9},            /* PING, too short */
        {"\x09\0\0\0\x10\0\0\0xxxxxxxxx", 17}, /* PING, a byte left over */
        {"\0\0\0\0\x40\0\0\0", 8},             /* OK is an answer */
        {"\1\0\0\0\x60\0\0\0x", 9},            /* STDIN without EXEC */
        {"\0\0\0\0\x11\0\0\0", 8},             /* empty EXEC */
    };
    struct peer *bystander = peer_open(t);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct peer *p = peer_open(t);
        peer_send(p, cases[i].bytes, cases[i].len);
        peer_expect_error(p, SM_WIRE_E_PROTOCOL);
        peer_close(p);
    }
    peer_put(bystander, SM_WIRE_PING, &(struct sm_wire_ping){.cookie = 1});
    peer_expect(bystander, SM_WIRE_PONG, NULL);
    peer_close(bystander);
}

/* Without reading an answer: the agent must stop reading, not grow, and answer all in the end. */
static void a_host_that_does_not_read_is_waited_for(void **state)
{
    struct peer *p = peer_open(*state);
    uint8_t ping[16];
    struct sm_wire_writer w = {.buf = ping, .cap = sizeof(ping)};
    sm_wire_put_ping(&w, &(struct sm_wire_ping){.cookie = 3});
    size_t sent = 0;
    /* It may not have come to read the first ones yet: so many are more than the socket holds. */
    for (unsigned quiet = 0; quiet < 50 || (sent / 16 <= 1000 && quiet < PATIENCE_MS / 2);
         quiet++) {
        ssize_t n;
        while (
            (n = send(p->fd, ping + sent % 16, 16 - sent % 16, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0) {
            sent += (size_t)n;
            quiet = 0;
            assert_true(sent < (64u << 20));
        }
        usleep(2000);
    }
    assert_true(sent / 16 > 1000);
    for (size_t i = 0; i < sent / 16; i++)
        peer_expect(p, SM_WIRE_PONG, NULL);
    peer_close(p);
}

/* ---- listeners ---------------------------------------------------------------------------- */

static int listen_tcp(uint16_t *port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    *port = ntohs(addr.sin_port);
    return fd;
}

static bool listed(const struct sm_wire_sockets *m, uint16_t protocol, uint16_t port)
{
    struct sm_wire_socket s;
    for (uint32_t i = 0; sm_wire_sockets_get(m, i, &s); i++)
        if (s.protocol == protocol && s.port == port && s.family == 4 && s.address[0] == 127)
            return true;
    return false;
}

static void listeners_are_listed(void **state)
{
    struct peer *p = peer_open(*state);
    struct sm_wire_sockets m;
    uint16_t port;
    int fd = listen_tcp(&port);
    peer_put(p, SM_WIRE_LISTENERS, NULL);
    peer_expect(p, SM_WIRE_SOCKETS, &m);
    assert_true(listed(&m, 6, port));
    close(fd);
    peer_put(p, SM_WIRE_LISTENERS, NULL);
    peer_expect(p, SM_WIRE_SOCKETS, &m);
    assert_false(listed(&m, 6, port));
    peer_close(p);
}

static void a_listener_is_waited_for(void **state)
{
    struct peer *p = peer_open(*state);
    struct sm_wire_sockets m;
    uint8_t both[64];
    struct sm_wire_writer w = {.buf = both, .cap = sizeof(both)};
    uint16_t port;
    int fd = listen_tcp(&port);
    peer_put(p, SM_WIRE_WAIT_LISTEN,
        &(struct sm_wire_wait_listen){.port = port, .timeout_ms = PATIENCE_MS});
    peer_expect(p, SM_WIRE_SOCKETS, &m);
    assert_true(listed(&m, 6, port));

    close(fd); /* bound, not listening: listens only after the agent has been asked */
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    peer_put(p, SM_WIRE_WAIT_LISTEN,
        &(struct sm_wire_wait_listen){.port = port, .timeout_ms = PATIENCE_MS});
    usleep(100000);
    assert_int_equal(listen(fd, 1), 0);
    peer_expect(p, SM_WIRE_SOCKETS, &m);
    assert_true(listed(&m, 6, port));

    /* The wait is bounded, and what is pipelined behind its failure is not done. */
    close(fd);
    sm_wire_put_wait_listen(&w, &(struct sm_wire_wait_listen){.port = port, .timeout_ms = 50});
    sm_wire_put_ping(&w, &(struct sm_wire_ping){.cookie = 9});
    assert_false(w.failed);
    peer_send(p, both, w.len); /* at once: after the failure nobody would take the second */
    peer_expect_error(p, SM_WIRE_E_TIMEOUT);
    peer_close(p);
}

/* Other programs of this machine may come and go meanwhile: frames are read until what is meant. */
static void expect_listed(struct peer *p, uint16_t port, bool there)
{
    struct sm_wire_sockets m;
    do
        peer_expect(p, SM_WIRE_SOCKETS, &m);
    while (listed(&m, 6, port) != there);
    assert_true(m.records.len <= SM_WIRE_MAX_WATCHED * SM_WIRE_SOCKET_SIZE);
}

static void a_watch_tells_what_comes_and_goes(void **state)
{
    struct peer *p = peer_open(*state), *q = peer_open(*state);
    uint16_t first, second;
    int one = listen_tcp(&first);
    peer_put(p, SM_WIRE_WATCH, NULL);
    expect_listed(p, first, true); /* what was there before */
    int two = listen_tcp(&second);
    expect_listed(p, second, true);
    close(one);
    expect_listed(p, first, false);
    /* A watch takes the connection over; others are served. */
    peer_put(p, SM_WIRE_PING, &(struct sm_wire_ping){.cookie = 1});
    peer_put(q, SM_WIRE_PING, &(struct sm_wire_ping){.cookie = 2});
    peer_expect(q, SM_WIRE_PONG, NULL);
    close(two);
    expect_listed(p, second, false);
    peer_close(p);
    peer_close(q);
}

/* Looks become rare, but not after a command was started. */
static void a_new_command_is_looked_after_soon(void **state)
{
    struct timespec begin, end;
    unsigned tries = 0;
    do { /* on a busy host all takes long; but never soon is wrong */
        struct peer *p = peer_open(*state);
        struct run r = {.exec = {.argv = SHELL("exit 0")}};
        uint16_t port;
        assert_int_not_equal(tries++, 20);
        peer_put(p, SM_WIRE_WATCH, NULL);
        peer_expect(p, SM_WIRE_SOCKETS, NULL);
        usleep(2000000); /* the next look is more than a second away */
        int fd = listen_tcp(&port);
        run(*state, &r);
        clock_gettime(CLOCK_MONOTONIC, &begin);
        expect_listed(p, port, true);
        clock_gettime(CLOCK_MONOTONIC, &end);
        run_free(&r);
        close(fd);
        peer_close(p);
    } while ((end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000 >= 1400);
}

static void only_the_host_is_answered(void **state)
{
    (void)state;
    struct sockaddr_vm peer = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST};
    assert_true(host_is(&peer));
    static const uint32_t others[] = {VMADDR_CID_LOCAL, VMADDR_CID_HYPERVISOR, 3, VMADDR_CID_ANY};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        peer.svm_cid = others[i];
        assert_false(host_is(&peer));
    }
}

/* ---- directories -------------------------------------------------------------------------- */

static void directories_are_removed_however_deep(void **state)
{
    char path[] = "/tmp/sm-agent-tree-XXXXXX";
    assert_non_null(mkdtemp(path));
    int top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), at = dup(top);
    for (int i = 0; i < 3000; i++) { /* deeper than a path is long */
        assert_int_equal(mkdirat(at, "wide", 0700), 0);
        assert_int_equal(mkdirat(at, "deep", 0700), 0);
        int next = openat(at, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        close(at);
        at = next;
    }
    /* What cannot be removed is told, and not tried for ever. */
    int file = openat(at, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(directory_empty(top), -1);
    assert_int_equal(errno, EBUSY);
    assert_int_equal(unlinkat(at, "file", 0), 0);
    close(file);
    close(at);
    assert_int_equal(directory_empty(top), 0);
    assert_int_equal(directory_empty(top), 0);
    close(top);
    assert_int_equal(rmdir(path), 0);
}

/* ---- processes -------------------------------------------------------------------------- */

static int stops(void *unused)
{
    (void)unused;
    syscall(SYS_tgkill, syscall(SYS_getpid), syscall(SYS_gettid), SIGSTOP);
    return 1;
}

static int ends(void *unused)
{
    (void)unused;
    return 7;
}

static void who_does_not_come_to_execute_is_killed(void **state)
{
    static _Alignas(16) uint8_t stack[64 * 1024];
    struct clone_child child = {
        .stack = stack, .stack_size = sizeof(stack), .cgroup = -1, .fn = stops};
    int status;
    assert_int_equal(clone_until_it_executes(&child, 50), -1);
    assert_int_equal(errno, ETIMEDOUT);
    assert_true(waitpid(-1, &status, 0) > 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    child.fn = ends;
    pid_t pid = clone_until_it_executes(&child, PATIENCE_MS);
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, agent_setup, agent_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_host_is_answered),
        TEST(ping_tells_the_boot_and_counts),
        TEST(requests_are_answered_in_order_without_waiting),
        TEST(a_request_may_come_byte_by_byte),
        TEST(restore_and_exec_in_one_write),
        TEST(a_restore_that_fails_runs_nothing),
        TEST(identity_is_checked_before_anything_is_done),
        TEST(single_steps_of_a_restore),
        TEST(a_network_is_set_before_the_restore),
        TEST(idle_is_when_the_cpus_rest),
        TEST(restore_thaws_what_was_frozen_once),
        TEST(while_all_is_frozen_no_command_begins),
        TEST(without_processes_nothing_is_frozen_or_thawed),
        TEST(freezing_takes_its_time_but_not_more),
        TEST(time_without_a_cpu_is_not_waited),
        TEST(a_file_comes_back_as_it_was_written),
        TEST(a_file_has_one_frame_a_turn),
        TEST(an_empty_file_and_one_of_proc),
        TEST(files_that_cannot_be_read),
        TEST(a_file_is_replaced_whole_or_not_at_all),
        TEST(what_is_no_request_ends_the_connection_only),
        TEST(a_host_that_does_not_read_is_waited_for),
        TEST(listeners_are_listed),
        cmocka_unit_test(who_does_not_come_to_execute_is_killed),
        cmocka_unit_test(directories_are_removed_however_deep),
        TEST(a_listener_is_waited_for),
        TEST(a_watch_tells_what_comes_and_goes),
        TEST(a_new_command_is_looked_after_soon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
