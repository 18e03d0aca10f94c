/* Commands run by the agent: streams, end, signals, terminals, users. */
#include "agent_util.h"
#include "patience.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* It is no process any more, or soon will be none. */
static bool gone(pid_t pid)
{
    assert_true(pid > 0);
    for (int i = 0; i < PATIENCE_MS / 10; i++) {
        if (kill(pid, 0) != 0 && errno == ESRCH)
            return true;
        usleep(10000);
    }
    return false;
}

static void refused(
    struct agent_test *t, const struct sm_wire_exec *exec, enum sm_wire_error_kind kind)
{
    struct peer *p = peer_open(t);
    peer_put(p, SM_WIRE_EXEC, exec);
    peer_expect_error(p, kind);
    peer_close(p);
}

/* The command is refused with these words. */
static void refused_saying(
    struct agent_test *t, const char *command, enum sm_wire_error_kind kind, const char *words)
{
    struct sm_wire_exec exec = {.argv = ARGV(command)};
    struct peer *p = peer_open(t);
    struct sm_wire_error e;
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect(p, SM_WIRE_ERROR, &e);
    assert_int_equal(e.kind, kind);
    if (!strstr(e.message, words))
        fail_msg("%s", e.message);
    peer_close(p);
}

/* ---- end and output ----------------------------------------------------------------------- */

static void output_and_status(void **state)
{
    struct run r = {.exec = {.argv = SHELL("echo out; echo err >&2; exit 7")}};
    run(*state, &r);
    assert_string_equal(r.out, "out\n");
    assert_string_equal(r.err, "err\n");
    assert_int_equal(r.exit.code, 7);
    assert_int_equal(r.exit.signal, 0);
    assert_int_equal(r.exit.timed_out, 0);
    assert_in_range(r.exit.peak_rss_bytes, 64 * 1024, 64 << 20);
    assert_true(r.exit.wall_us > 0);
    run_free(&r);
}

static void a_signal_is_told_as_such(void **state)
{
    struct run r = {.exec = {.argv = SHELL("kill -SEGV $$")}};
    run(*state, &r);
    assert_int_equal(r.exit.code, -1);
    assert_int_equal(r.exit.signal, SIGSEGV);
    run_free(&r);
}

static void unwanted_streams_are_null(void **state)
{
    struct run r = {
        .exec = {
            .argv = SHELL("readlink /proc/self/fd/0 /proc/self/fd/2; echo e >&2; read x; echo $?"),
            .flags = SM_WIRE_EXEC_STDOUT}};
    run(*state, &r);
    assert_string_equal(r.out, "/dev/null\n/dev/null\n1\n");
    assert_string_equal(r.err, "");
    run_free(&r);
}

static void no_descriptor_of_the_agent_leaks(void **state)
{
    struct run r = {.exec = {.argv = SHELL("echo /proc/self/fd/*")}};
    run(*state, &r);
    assert_string_equal(r.out, "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n");
    run_free(&r); /* 3 is the shell's own directory */
}

static void signals_start_unblocked_and_in_an_own_session(void **state)
{
    struct run r = {
        .exec = {.argv = SHELL(
                     "grep SigBlk /proc/self/status; cut -d' ' -f5,6 /proc/$$/stat; echo $$")}};
    char want[64];
    int pid;
    run(*state, &r);
    assert_int_equal(sscanf(r.out, "SigBlk: 0000000000000000 %d", &pid), 1);
    snprintf(want, sizeof(want), "SigBlk:\t0000000000000000\n%d %d\n%d\n", pid, pid, pid);
    assert_string_equal(r.out, want);
    run_free(&r);
}

static void much_output_arrives_whole_at_a_slow_reader(void **state)
{
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    struct run r = {
        .exec = {.argv = SHELL("seq 1 600000; seq 1 600000 >&2"), .flags = EXEC_STREAMS}};
    peer_put(p, SM_WIRE_EXEC, &r.exec);
    usleep(300000); /* everything is full now */
    run_streams(p, &r);
    assert_int_equal(r.out_len, 4088895);
    assert_int_equal(r.err_len, 4088895);
    assert_memory_equal(r.out, r.err, r.out_len);
    assert_memory_equal(r.out + r.out_len - 14, "599999\n600000\n", 14);
    run_free(&r);
    peer_close(p);
}

static void a_descendant_that_keeps_the_pipe_is_not_waited_for(void **state)
{
    struct run r = {.exec = {.argv = SHELL("sleep 1000 & echo $!; echo done")}};
    int pid;
    run(*state, &r);
    assert_int_equal(sscanf(r.out, "%d\ndone", &pid), 1);
    assert_non_null(strstr(r.out, "\ndone\n"));
    assert_int_equal(kill(pid, SIGKILL), 0); /* it still was there */
    run_free(&r);
}

static void many_at_once(void **state)
{
    struct agent_test *t = *state;
    struct peer *peers[100];
    for (unsigned i = 0; i < 100; i++) {
        char script[64];
        snprintf(script, sizeof(script), "sleep 0.2; echo %u; exit %u", i, i);
        struct sm_wire_exec exec = {.argv = SHELL(script), .flags = EXEC_STREAMS};
        peers[i] = peer_open(t);
        peer_put(peers[i], SM_WIRE_EXEC, &exec);
    }
    for (unsigned i = 0; i < 100; i++) {
        struct run r = {.exec.flags = EXEC_STREAMS};
        run_streams(peers[i], &r);
        assert_int_equal(atoi(r.out), i);
        assert_int_equal(r.exit.code, i);
        run_free(&r);
        peer_close(peers[i]);
    }
}

/* ---- what cannot be started --------------------------------------------------------------- */

static void commands_that_cannot_be_started(void **state)
{
    struct agent_test *t = *state;
    char script[128];
    snprintf(script, sizeof(script), "%s/script", t->dir);
    struct sm_wire_exec none = {.flags = 0};
    refused(t, &none, SM_WIRE_E_NOT_FOUND);
    struct sm_wire_exec empty = {.argv = ARGV("")};
    refused(t, &empty, SM_WIRE_E_NOT_FOUND);
    struct sm_wire_exec missing = {.argv = ARGV("no-such-command")};
    refused(t, &missing, SM_WIRE_E_NOT_FOUND);
    struct sm_wire_exec missing_path = {.argv = ARGV("/no/such/command")};
    refused(t, &missing_path, SM_WIRE_E_NOT_FOUND);
    struct sm_wire_exec directory = {.argv = ARGV("/tmp")};
    refused(t, &directory, SM_WIRE_E_CANNOT_EXEC);
    struct sm_wire_exec no_mode = {.argv = ARGV("/etc/passwd")};
    refused(t, &no_mode, SM_WIRE_E_CANNOT_EXEC);

    int fd = open(script, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    assert_int_equal(write(fd, "#!/no/such/shell\n", 17), 17);
    close(fd);
    refused_saying(t, script, SM_WIRE_E_NOT_FOUND, "interpreter");
    static const struct {
        const char *bytes;
        size_t size;
        const char *words;
    } files[] = {
        {"#!/bin/sh\r\n", 11, "interpreter"},
        {"", 0, "an empty file"},
        {"not a program\n", 14, "no script that begins with #!"},
        {"\177EL", 3, "no script that begins with #!"},
        {"\177ELF\1\1\1\0\0\0\0\0\0\0\0\0\2\0\3\0", 20, "no 32-bit programs"},
        {"\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\377\377", 20, "of another CPU"},
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        fd = open(script, O_WRONLY | O_TRUNC | O_CLOEXEC);
        assert_int_equal(write(fd, files[i].bytes, files[i].size), files[i].size);
        close(fd);
        refused_saying(t, script, i ? SM_WIRE_E_CANNOT_EXEC : SM_WIRE_E_NOT_FOUND, files[i].words);
    }
    struct sm_wire_exec not_in_path = {
        .argv = ARGV("script"), .env = ARGV("PATH=/nowhere::/also/not")};
    refused(t, &not_in_path, SM_WIRE_E_NOT_FOUND);
}

static void the_path_of_the_request_is_searched(void **state)
{
    struct agent_test *t = *state;
    char script[128], env[256];
    snprintf(script, sizeof(script), "%s/mytool", t->dir);
    snprintf(env, sizeof(env), "PATH=/nowhere:%s", t->dir);
    int fd = open(script, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    assert_int_equal(write(fd, "#!/bin/sh\necho found $1\n", 24), 24);
    close(fd);
    struct run r = {.exec = {.argv = ARGV("mytool", "it"), .env = ARGV(env)}};
    run(t, &r);
    assert_string_equal(r.out, "found it\n");
    run_free(&r);
}

static void environment(void **state)
{
    struct run r = {.exec = {.argv = ARGV("env"), .env = ARGV("A=1", "EMPTY=", "HOME=/x")}};
    run(*state, &r);
    assert_string_equal(r.out,
        "A=1\nEMPTY=\nHOME=/x\n"
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOSTNAME=box\n");
    run_free(&r);
    r = (struct run){.exec = {.argv = SHELL("echo $HOME")}};
    run(*state, &r);
    assert_string_equal(r.out, "/root\n");
    run_free(&r);
}

static void large_arguments(void **state)
{
    static char big[100001];
    const char *argv[10] = {"sh", "-c", "echo ${#1} ${#6}", "sh"};
    memset(big, 'x', sizeof(big) - 1);
    for (int i = 4; i < 9; i++)
        argv[i] = big;
    argv[9] = "last";
    const char *full[11];
    memcpy(full, argv, sizeof(argv));
    full[10] = NULL;
    struct run r = {.exec = {.argv = {.strv = full}}};
    run(*state, &r);
    assert_string_equal(r.out, "100000 4\n");
    run_free(&r);
}

static void working_directory(void **state)
{
    struct agent_test *t = *state;
    char made[128], want[160], blocked[128];
    snprintf(made, sizeof(made), "%s/a/b/c", t->dir);
    snprintf(want, sizeof(want), "%s\n", made);
    snprintf(blocked, sizeof(blocked), "%s/passwd/x", t->dir);
    struct run r = {.exec = {.argv = ARGV("pwd"), .cwd = made}};
    run(t, &r);
    assert_string_equal(r.out, want);
    run_free(&r);
    struct sm_wire_exec file = {.argv = ARGV("pwd"), .cwd = blocked};
    refused(t, &file, SM_WIRE_E_BAD_CWD);
    struct sm_wire_exec relative = {.argv = ARGV("pwd"), .cwd = "tmp"};
    refused(t, &relative, SM_WIRE_E_BAD_CWD);
}

/* ---- stdin -------------------------------------------------------------------------------- */

static void stdin_comes_back_unchanged(void **state)
{
    size_t len = 3 << 20;
    uint8_t *data = malloc(len);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    struct run r = {.exec = {.argv = ARGV("cat")}, .input = data, .input_len = len};
    run(*state, &r);
    assert_int_equal(r.exit.code, 0);
    assert_int_equal(r.out_len, len);
    assert_memory_equal(r.out, data, len);
    run_free(&r);
    free(data);
}

static void a_command_need_not_read_its_stdin(void **state)
{
    static uint8_t data[1 << 20];
    struct agent_test *t = *state;
    char script[160], sent_all[80];
    snprintf(sent_all, sizeof(sent_all), "%s/sent-all", t->dir);
    snprintf(script, sizeof(script), "exec <&-; while [ ! -e %s ]; do sleep 0.02; done; echo ok",
        sent_all);
    struct run r = {.exec = {.argv = SHELL(script)},
        .input = data,
        .input_len = sizeof(data),
        .sent_all = sent_all};
    run(t, &r);
    assert_string_equal(r.out, "ok\n");
    run_free(&r);
}

static void a_signal_overtakes_stdin_that_nobody_reads(void **state)
{
    static uint8_t data[SM_WIRE_STDIN_WINDOW];
    struct agent_test *t = *state;
    struct sm_wire_exec exec = {.argv = ARGV("sleep", "100"), .flags = EXEC_STREAMS};
    struct peer *p = peer_open(t);
    struct sm_wire_frame f;
    struct sm_wire_exit e;
    struct sm_wire_window w;
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect(p, SM_WIRE_STARTED, NULL);
    uint8_t header[SM_WIRE_HEADER];
    sm_wire_data_header(header, SM_WIRE_STDIN, sizeof(data));
    /* The pipe takes the first, the agent's buffer the second; then there is no credit left. */
    peer_send(p, header, sizeof(header));
    peer_send(p, data, sizeof(data));
    peer_expect(p, SM_WIRE_WINDOW, &w);
    assert_int_equal(w.bytes, sizeof(data));
    peer_send(p, header, sizeof(header));
    peer_send(p, data, sizeof(data));
    peer_put(p, SM_WIRE_STDIN_EOF, NULL);
    peer_put(p, SM_WIRE_SIGNAL, &(struct sm_wire_signal){.signal = SIGTERM});
    do
        assert_true(peer_next(p, &f));
    while (f.type == SM_WIRE_WINDOW);
    assert_true(sm_wire_get_exit(&f, &e));
    assert_int_equal(e.signal, SIGTERM);
    peer_close(p);
}

static void stdin_beyond_the_window_is_an_error(void **state)
{
    static uint8_t data[SM_WIRE_MAX_DATA];
    struct agent_test *t = *state;
    struct sm_wire_exec exec = {.argv = ARGV("sleep", "100"), .flags = EXEC_STREAMS};
    struct peer *p = peer_open(t);
    struct sm_wire_started started;
    struct sm_wire_frame f;
    struct sm_wire_error e;
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect(p, SM_WIRE_STARTED, &started);
    uint8_t header[SM_WIRE_HEADER];
    sm_wire_data_header(header, SM_WIRE_STDIN, sizeof(data));
    for (int i = 0; i < 3; i++) {
        peer_send(p, header, sizeof(header));
        peer_send(p, data, sizeof(data));
    }
    do
        assert_true(peer_next(p, &f));
    while (f.type == SM_WIRE_WINDOW);
    assert_true(sm_wire_get_error(&f, &e));
    assert_int_equal(e.kind, SM_WIRE_E_PROTOCOL);
    assert_true(gone((pid_t)started.pid));
    peer_close(p);
}

/* Reads STDOUT until it has seen the text. */
static void wait_for(struct peer *p, const char *text)
{
    char seen[4096] = "";
    size_t len = 0;
    while (!strstr(seen, text)) {
        struct sm_wire_frame f;
        assert_true(peer_next(p, &f));
        assert_int_equal(f.type, SM_WIRE_STDOUT);
        assert_true(len + f.len < sizeof(seen));
        memcpy(seen + len, f.payload, f.len);
        len += f.len;
    }
}

/* ---- memory ------------------------------------------------------------------------------- */

/* The kernel's count has risen since the command began, and it or what it waited for was killed. */
static void who_was_killed_for_want_of_memory_is_told_so(void **state)
{
    struct agent_test *t = *state;
    static const struct {
        const char *script;
        bool kills; /* the kernel does, meanwhile */
        unsigned told;
        bool host; /* and then the host does */
    } cases[] = {
        {"kill -9 $$", true, 1},
        {"exit 137", true, 1},
        {"kill -9 $$", false, 0},
        {"exit 0", true, 0},
        {"kill -9 $$", false, 0}, /* what was before is another one's */
        {"kill -15 $$", true, 0},
        {"sleep 100", true, 0, .host = true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sm_wire_exec exec = {.flags = EXEC_STREAMS,
            .env = {.strv = (const char *const[]){NULL}},
            .argv = ARGV("sh", "-c", "read x; eval \"$1\"", "sh", cases[i].script)};
        struct peer *p = peer_open(t);
        peer_put(p, SM_WIRE_EXEC, &exec);
        peer_expect(p, SM_WIRE_STARTED, NULL);
        t->system->kills += cases[i].kills;
        uint8_t go[SM_WIRE_HEADER + 1];
        sm_wire_data_header(go, SM_WIRE_STDIN, 1);
        go[SM_WIRE_HEADER] = '\n';
        peer_send(p, go, sizeof(go));
        if (cases[i].host)
            peer_put(p, SM_WIRE_SIGNAL, &(struct sm_wire_signal){.signal = SIGKILL});
        struct sm_wire_exit e;
        peer_expect(p, SM_WIRE_EXIT, &e);
        assert_int_equal(e.out_of_memory, cases[i].told);
        peer_close(p);
    }
}

/* ---- time and signals --------------------------------------------------------------------- */

/* Runs into its limit; into a longer one if the host was too busy for the command to say a word
 * before that. */
static struct run run_out_of_time(struct agent_test *t, struct sm_wire_exec exec)
{
    for (exec.timeout_ms = 300; exec.timeout_ms < PATIENCE_MS; exec.timeout_ms *= 10) {
        struct run r = {.exec = exec};
        run(t, &r);
        assert_int_equal(r.exit.timed_out, 1);
        assert_true(r.exit.wall_us >= exec.timeout_ms * 1000u - 10000);
        if (r.out_len)
            return r;
        run_free(&r);
    }
    fail_msg("the command says nothing");
    return (struct run){0};
}

static void a_timeout_kills_the_group(void **state)
{
    struct run r =
        run_out_of_time(*state, (struct sm_wire_exec){.argv = SHELL("sleep 1000 & echo $!; wait")});
    assert_int_equal(r.exit.signal, SIGKILL);
    assert_true(gone(atoi(r.out)));
    run_free(&r);
}

static void a_timeout_with_grace_asks_first(void **state)
{
    struct run r = run_out_of_time(*state,
        (struct sm_wire_exec){.argv = SHELL("trap 'echo bye; exit 3' TERM; sleep 100 & wait"),
            .grace_ms = PATIENCE_MS});
    assert_string_equal(r.out, "bye\n");
    assert_int_equal(r.exit.code, 3);
    run_free(&r);
    r = run_out_of_time(*state,
        (struct sm_wire_exec){
            .argv = SHELL("trap '' TERM; echo deaf; while :; do sleep 1; done"), .grace_ms = 200});
    assert_string_equal(r.out, "deaf\n");
    assert_int_equal(r.exit.signal, SIGKILL);
    run_free(&r);
}

/* The command has a child; one signal, then one that kills the whole group. */
static void signals_reach_the_command_or_the_whole_group(void **state)
{
    struct agent_test *t = *state;
    struct sm_wire_exec exec = {
        .argv = SHELL("trap 'kill -0 $! && echo lives' USR1; sleep 100 & echo $!; wait; wait"),
        .flags = EXEC_STREAMS};
    struct peer *p = peer_open(t);
    struct sm_wire_frame f;
    struct sm_wire_exit e;
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect(p, SM_WIRE_STARTED, NULL);
    assert_true(peer_next(p, &f));
    assert_int_equal(f.type, SM_WIRE_STDOUT);
    pid_t child = atoi((const char *)f.payload);
    peer_put(p, SM_WIRE_SIGNAL, &(struct sm_wire_signal){.signal = SIGUSR1});
    wait_for(p, "lives\n");
    peer_put(p, SM_WIRE_SIGNAL, &(struct sm_wire_signal){.signal = SIGKILL, .group = 1});
    peer_expect(p, SM_WIRE_EXIT, &e);
    assert_int_equal(e.signal, SIGKILL);
    assert_true(gone(child));
    peer_close(p);
}

/* STARTED finds no memory: the command ends with its connection, and the next one in the same slot
 * is not its. */
static void a_command_that_cannot_be_told_of_is_gone(void **state)
{
    struct agent_test *t = *state;
    struct sm_wire_exec exec = {.argv = SHELL("sleep 1; echo stray"), .flags = EXEC_STREAMS};
    struct peer *p = peer_open(t);
    t->system->allocs = 1; /* for the request itself */
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect_end(p);
    t->system->allocs = -1;
    struct run r = {.exec = {.argv = SHELL("sleep 2; echo mine")}};
    run(t, &r);
    assert_string_equal(r.out, "mine\n");
    assert_int_equal(r.exit.code, 0);
    run_free(&r);
    peer_close(p);
}

static void more_arguments_than_before_reach_the_kernel(void **state)
{
    enum { COUNT = 100000 };
    static const char *argv[COUNT + 5] = {"sh", "-c", "echo $#", "sh"};
    for (size_t i = 0; i < COUNT; i++)
        argv[4 + i] = "1";
    struct run r = {.exec = {.argv = {.strv = argv}}};
    run(*state, &r);
    assert_string_equal(r.out, "100000\n");
    run_free(&r);
}

static void a_lost_connection_ends_the_command(void **state)
{
    struct agent_test *t = *state;
    struct sm_wire_exec exec = {.argv = SHELL("sleep 100 & echo $!; wait"), .flags = EXEC_STREAMS};
    struct peer *p = peer_open(t);
    struct sm_wire_frame f;
    struct sm_wire_started started;
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect(p, SM_WIRE_STARTED, &started);
    assert_true(peer_next(p, &f));
    pid_t child = atoi((const char *)f.payload);
    peer_close(p);
    assert_true(gone((pid_t)started.pid));
    assert_true(gone(child));
}

static struct peer *attach(struct agent_test *t, uint32_t pid)
{
    /* The agent may not have noticed yet that the connection before is gone. */
    for (int i = 0;; i++) {
        struct peer *p = peer_open(t);
        struct sm_wire_frame f;
        peer_put(p, SM_WIRE_ATTACH, &(struct sm_wire_attach){.pid = pid});
        assert_true(peer_next(p, &f));
        if (f.type == SM_WIRE_STARTED || i == PATIENCE_MS / 10) {
            p->used -= SM_WIRE_HEADER + f.len; /* for the caller to see again */
            return p;
        }
        peer_close(p);
        usleep(10000);
    }
}

static void a_detached_command_survives_and_is_taken_up(void **state)
{
    struct agent_test *t = *state;
    struct sm_wire_exec exec = {
        .argv = SHELL("echo first; read a; echo got $a; seq 1 30000; exit 5"),
        .flags = EXEC_STREAMS | SM_WIRE_EXEC_DETACH};
    struct peer *p = peer_open(t);
    struct sm_wire_started started;
    struct sm_wire_frame f;
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect(p, SM_WIRE_STARTED, &started);
    assert_true(peer_next(p, &f));
    assert_memory_equal(f.payload, "first\n", 6);
    peer_close(p);

    struct run r = {.input = "x\n", .input_len = 2};
    p = attach(t, started.pid);
    run_streams(p, &r);
    peer_close(p);
    assert_memory_equal(r.out, "got x\n1\n2\n", 10);
    assert_int_equal(r.out_len, 6 + 168894);
    assert_int_equal(r.exit.code, 5);
    run_free(&r);

    p = peer_open(t); /* once reported it is forgotten */
    peer_put(p, SM_WIRE_ATTACH, &(struct sm_wire_attach){.pid = started.pid});
    peer_expect_error(p, SM_WIRE_E_NO_PROCESS);
    peer_close(p);
}

static void a_detached_command_may_end_alone(void **state)
{
    struct agent_test *t = *state;
    struct sm_wire_exec exec = {.argv = SHELL("sleep 0.2; echo alone; exit 4"),
        .flags = EXEC_STREAMS | SM_WIRE_EXEC_DETACH};
    struct peer *p = peer_open(t);
    struct sm_wire_started started;
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect(p, SM_WIRE_STARTED, &started);
    peer_close(p);
    assert_true(gone((pid_t)started.pid));
    struct run r = {.exec.flags = EXEC_STREAMS};
    p = attach(t, started.pid);
    run_streams(p, &r);
    peer_close(p);
    assert_string_equal(r.out, "alone\n");
    assert_int_equal(r.exit.code, 4);
    run_free(&r);
}

static const struct sm_wire_restore restore = {
    .seed = {"seed", 4}, .hostname = "clone", .machine_id = ""};

/* As the host does: in one write. */
static void restore_and_attach(struct peer *p, const struct sm_wire_restore *m)
{
    uint8_t both[1024];
    struct sm_wire_writer w = {.buf = both, .cap = sizeof(both)};
    sm_wire_put(&w, SM_WIRE_RESTORE, m);
    sm_wire_put(&w, SM_WIRE_ATTACH, &(struct sm_wire_attach){.pid = m->attach_pid});
    assert_false(w.failed);
    peer_send(p, both, w.len);
}

/* What ran when the guest was captured, in a copy of the guest: its connection is gone, whether the
 * agent has been told so yet or not. */
static void is_taken_up(struct agent_test *t, bool told)
{
    char script[256], go[80];
    snprintf(go, sizeof(go), "%s/go", t->dir);
    snprintf(
        script, sizeof(script), "while [ ! -e %s ]; do sleep 0.02; done; seq 1 30000; exit 6", go);
    struct sm_wire_exec exec = {.argv = SHELL(script), .flags = EXEC_STREAMS};
    struct sm_wire_started started[2];
    struct peer *p[2], *host = peer_open(t);
    for (unsigned i = 0; i < 2; i++) {
        p[i] = peer_open(t);
        peer_put(p[i], SM_WIRE_EXEC, &exec);
        peer_expect(p[i], SM_WIRE_STARTED, &started[i]);
    }
    t->system->frozen = 1;
    peer_put(host, SM_WIRE_FREEZE, &(struct sm_wire_freeze){.timeout_ms = PATIENCE_MS});
    peer_expect(host, SM_WIRE_OK, NULL);
    if (told)
        peer_close(p[0]);
    peer_close(p[1]);
    peer_close(host);
    host = peer_open(t);
    struct sm_wire_restore keep = restore;
    keep.attach_pid = started[0].pid;
    restore_and_attach(host, &keep);
    close(open(go, O_WRONLY | O_CREAT, 0600));

    assert_true(gone((pid_t)started[1].pid)); /* unheard, and not held up by that */
    struct run r = {.exec.flags = EXEC_STREAMS};
    peer_expect(host, SM_WIRE_OK, NULL);
    run_streams(host, &r);
    peer_close(host);
    assert_int_equal(r.out_len, 168894);
    assert_int_equal(r.exit.code, 6);
    run_free(&r);
    host = peer_open(t);
    peer_put(host, SM_WIRE_ATTACH, &(struct sm_wire_attach){.pid = started[1].pid});
    peer_expect_error(host, SM_WIRE_E_NO_PROCESS);
    peer_close(host);
    unlink(go);
    if (!told) {
        peer_expect_end(p[0]);
        peer_close(p[0]);
    }
}

static void a_captured_command_is_taken_up(void **state)
{
    is_taken_up(*state, true);
}

static void a_captured_command_is_taken_up_before_its_loss_is_known(void **state)
{
    is_taken_up(*state, false);
}

/* ---- terminals ---------------------------------------------------------------------------- */

#define TTY_FLAGS (SM_WIRE_EXEC_TTY | SM_WIRE_EXEC_STDIN | SM_WIRE_EXEC_STDOUT)

static void a_terminal_has_a_size_and_a_name(void **state)
{
    struct run r = {
        .exec = {.argv = SHELL("test -t 0 && test -t 1 && test -t 2 && stty size; echo $TERM; "
                               "sh -c 'echo controlled >/dev/tty'"),
            .flags = TTY_FLAGS,
            .rows = 33,
            .columns = 111}};
    run(*state, &r);
    assert_string_equal(r.out, "33 111\r\nxterm\r\ncontrolled\r\n");
    run_free(&r);
    r = (struct run){.exec = {.argv = ARGV("stty", "size"), .flags = TTY_FLAGS}};
    run(*state, &r);
    assert_string_equal(r.out, "24 80\r\n");
    run_free(&r);
}

static void type(struct peer *p, const char *text)
{
    uint8_t header[SM_WIRE_HEADER];
    sm_wire_data_header(header, SM_WIRE_STDIN, (uint32_t)strlen(text));
    peer_send(p, header, sizeof(header));
    peer_send(p, text, strlen(text));
}

static void resize_and_keys_reach_the_foreground(void **state)
{
    struct agent_test *t = *state;
    struct sm_wire_exec exec = {
        .argv = SHELL("trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done"),
        .flags = TTY_FLAGS};
    struct peer *p = peer_open(t);
    struct sm_wire_exit e;
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect(p, SM_WIRE_STARTED, NULL);
    wait_for(p, "ready\r\n");
    peer_put(p, SM_WIRE_RESIZE, &(struct sm_wire_resize){.rows = 50, .columns = 132});
    wait_for(p, "50 132\r\n");
    type(p, "\003");
    wait_for(p, "^C");
    peer_expect(p, SM_WIRE_EXIT, &e);
    assert_int_equal(e.signal, SIGINT);
    peer_close(p);
}

static void end_of_stdin_is_end_of_file_on_a_terminal(void **state)
{
    struct run r = {
        .exec = {.argv = SHELL("stty -echo; echo go; cat; echo end"), .flags = TTY_FLAGS}};
    struct agent_test *t = *state;
    struct peer *p = peer_open(t);
    struct sm_wire_exit e;
    peer_put(p, SM_WIRE_EXEC, &r.exec);
    peer_expect(p, SM_WIRE_STARTED, NULL);
    wait_for(p, "go\r\n");
    type(p, "line\n");
    wait_for(p, "line\r\n");
    peer_put(p, SM_WIRE_STDIN_EOF, NULL);
    wait_for(p, "end\r\n");
    peer_expect(p, SM_WIRE_EXIT, &e);
    assert_int_equal(e.code, 0);
    peer_close(p);
}

/* Who had it before has left keys behind, and the end of his input. */
static void a_captured_terminal_is_typed_at_again(void **state)
{
    struct agent_test *t = *state;
    struct sm_wire_exec exec = {
        .argv =
            SHELL("stty -echo; echo on; read -r _ || echo end; read -r line; echo \"got $line\""),
        .flags = TTY_FLAGS};
    struct sm_wire_started started;
    struct sm_wire_exit e;
    struct peer *p = peer_open(t), *host = peer_open(t);
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect(p, SM_WIRE_STARTED, &started);
    wait_for(p, "on\r\n");
    peer_put(p, SM_WIRE_STDIN_EOF, NULL);
    wait_for(p, "end\r\n");
    t->system->frozen = 1;
    peer_put(host, SM_WIRE_FREEZE, &(struct sm_wire_freeze){.timeout_ms = PATIENCE_MS});
    peer_expect(host, SM_WIRE_OK, NULL);
    peer_close(host);
    peer_close(p);
    host = peer_open(t);
    struct sm_wire_restore keep = restore;
    keep.attach_pid = started.pid;
    restore_and_attach(host, &keep);
    peer_expect(host, SM_WIRE_OK, NULL);
    peer_expect(host, SM_WIRE_STARTED, NULL);
    type(host, "keys\n");
    wait_for(host, "got keys\r\n");
    peer_expect(host, SM_WIRE_EXIT, &e);
    assert_int_equal(e.code, 0);
    peer_close(host);
}

/* Between two lines nobody has it open; systemd does so with its console. */
static void a_terminal_that_is_closed_is_opened_again(void **state)
{
    struct run r = {.exec = {.argv = SHELL("echo one; exec <&- >&- 2>&-; for line in two three; do "
                                           "sleep 0.3; echo $line >/dev/tty; done"),
                        .flags = TTY_FLAGS}};
    run(*state, &r);
    assert_string_equal(r.out, "one\r\ntwo\r\nthree\r\n");
    run_free(&r);
}

static void a_lost_terminal_ends_its_jobs(void **state)
{
    struct agent_test *t = *state;
    struct sm_wire_exec exec = {
        .argv = SHELL("set -m; sh -c 'echo job $$; sleep 100'"), .flags = TTY_FLAGS};
    struct peer *p = peer_open(t);
    struct sm_wire_frame f;
    peer_put(p, SM_WIRE_EXEC, &exec);
    peer_expect(p, SM_WIRE_STARTED, NULL);
    assert_true(peer_next(p, &f));
    int job;
    assert_int_equal(sscanf((const char *)f.payload, "job %d", &job), 1);
    peer_close(p);
    assert_true(gone(job));
}

static void all_output_of_a_terminal_arrives(void **state)
{
    struct run r = {.exec = {.argv = ARGV("seq", "1", "20000"), .flags = TTY_FLAGS}};
    run(*state, &r);
    assert_int_equal(r.out_len, 108894 + 20000);
    run_free(&r);
}

/* ---- users -------------------------------------------------------------------------------- */

static void users(void **state)
{
    static const struct {
        const char *user, *uid, *gid, *groups, *home;
    } cases[] = {
        {"", "0", "0", "0", "/root"},
        {"root", "0", "0", "0", "/root"},
        {"app", "1000", "1001", "1001 10 50", "/home/app"},
        {"1000", "1000", "1001", "1001 10 50", "/home/app"},
        {"app:staff", "1000", "50", "50", "/home/app"},
        {"app:77", "1000", "77", "77", "/home/app"},
        {"4242", "4242", "0", "0", "/"},
        {"4242:4343", "4242", "4343", "4343", "/"},
        {"5", "5", "0", "0", "/"}, /* a name that looks like a number is none */
        {"last", "1002", "1002", "1002 50", "/home/last"},
    };
    if (getuid() != 0)
        skip();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char want[128];
        struct run r = {
            .exec = {.argv = SHELL("id -u; id -g; id -G; echo $HOME"), .user = cases[i].user}};
        run(*state, &r);
        snprintf(want, sizeof(want), "%s\n%s\n%s\n%s\n", cases[i].uid, cases[i].gid,
            cases[i].groups, cases[i].home);
        assert_string_equal(r.out, want);
        run_free(&r);
    }
}

static void streams_can_be_opened_by_their_user(void **state)
{
    struct run r = {
        .exec = {.argv = SHELL("echo out >/dev/stdout; echo err >/dev/stderr; cat </dev/stdin"),
            .user = "app"},
        .input = "in\n",
        .input_len = 3};
    if (getuid() != 0)
        skip();
    run(*state, &r);
    assert_string_equal(r.err, "err\n");
    assert_string_equal(r.out, "out\nin\n");
    run_free(&r);
    r = (struct run){.exec = {.argv = SHELL("echo out >/dev/stdout; echo tty >/dev/tty"),
                         .user = "app",
                         .flags = TTY_FLAGS}};
    run(*state, &r);
    assert_string_equal(r.out, "out\r\ntty\r\n");
    run_free(&r);
}

static void unknown_users(void **state)
{
    static const char *const names[] = {
        "nobody-here", "app:no-group", "broken line", "-1", "4294967295"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct sm_wire_exec exec = {.argv = ARGV("true"), .user = names[i]};
        refused(*state, &exec, SM_WIRE_E_NO_USER);
    }
}

/* ---- attributes --------------------------------------------------------------------------- */

/* As crun gives them; recorded from podman 4.3.1. */
static void attributes_are_what_was_asked_for(void **state)
{
    static const char groups[] = "wheel\000777";
    static uint8_t limits[2 * SM_WIRE_LIMIT_SIZE];
    sm_wire_limit_store(limits, &(struct sm_wire_limit){.resource = 7, .soft = 100, .hard = 200});
    sm_wire_limit_store(limits + SM_WIRE_LIMIT_SIZE,
        &(struct sm_wire_limit){.resource = 6, .soft = 50, .hard = 60});
    static const struct {
        const char *user;
        struct sm_wire_process process;
        const char *script, *want;
    } cases[] = {
#define SHOW_CAPS "grep Cap /proc/self/status | cut -f2 | cut -c8-"
        {"", {.flags = SM_WIRE_PROCESS_CAPABILITIES, .bounding = 0x800405fb}, SHOW_CAPS,
            "000000000\n0800405fb\n0800405fb\n0800405fb\n000000000\n"},
        {"app", {.flags = SM_WIRE_PROCESS_CAPABILITIES, .bounding = 0x800405fb}, SHOW_CAPS,
            "000000000\n000000000\n000000000\n0800405fb\n000000000\n"},
        {"app", {.flags = SM_WIRE_PROCESS_CAPABILITIES, .bounding = 0x800425fb, .ambient = 0x2000},
            SHOW_CAPS, "000002000\n000002000\n000002000\n0800425fb\n000002000\n"},
        {"", {.flags = SM_WIRE_PROCESS_CAPABILITIES, .bounding = 0x800425fb, .ambient = 0x2000},
            SHOW_CAPS, "000000000\n0800425fb\n0800425fb\n0800425fb\n000000000\n"},
        {"", {.flags = SM_WIRE_PROCESS_CAPABILITIES}, SHOW_CAPS,
            "000000000\n000000000\n000000000\n000000000\n000000000\n"},
        {"app",
            {.flags = SM_WIRE_PROCESS_UMASK | SM_WIRE_PROCESS_NO_NEW_PRIVS |
                      SM_WIRE_PROCESS_LIMITS | SM_WIRE_PROCESS_OOM_SCORE | SM_WIRE_PROCESS_GROUPS,
                .umask = 027,
                .oom_score_adj = 321,
                .limits = {limits, sizeof(limits)},
                .groups = {.data = groups, .bytes = sizeof(groups), .count = 2}},
            "umask; grep NoNewPrivs /proc/self/status; ulimit -Sn; ulimit -Hn; ulimit -Hu; cat "
            "/proc/self/oom_score_adj; id -G",
            "0027\nNoNewPrivs:\t1\n100\n200\n60\n321\n1001 10 50 777\n"},
        {"app", {0}, "umask; grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj",
            "0022\nNoNewPrivs:\t0\n0\n"},
    };
    if (getuid() != 0)
        skip();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct run r = {
            .exec = {.argv = {.strv = (const char *const[]){"bash", "-c", cases[i].script, NULL}},
                .user = cases[i].user,
                .process = cases[i].process}};
        run(*state, &r);
        assert_string_equal(r.out, cases[i].want);
        run_free(&r);
    }
}

static void attributes_that_cannot_be_are_refused(void **state)
{
    static const struct {
        const char *list;
        uint32_t flag;
        enum sm_wire_error_kind kind;
    } cases[] = {
        {"kernel.no_such_setting=1", SM_WIRE_PROCESS_SYSCTLS, SM_WIRE_E_BAD_VALUE},
        {"kernel/../../../tmp/sm-agent-sysctl=1", SM_WIRE_PROCESS_SYSCTLS, SM_WIRE_E_BAD_VALUE},
        {"/tmp/x=1", SM_WIRE_PROCESS_SYSCTLS, SM_WIRE_E_BAD_VALUE},
        {"kernel", SM_WIRE_PROCESS_SYSCTLS, SM_WIRE_E_BAD_VALUE},
        {"no-such-group", SM_WIRE_PROCESS_GROUPS, SM_WIRE_E_NO_USER},
        {"-1", SM_WIRE_PROCESS_GROUPS, SM_WIRE_E_NO_USER},
        {"6", SM_WIRE_PROCESS_TMPFS, SM_WIRE_E_BAD_VALUE},
        {"6:/proc/no-such:mode=1777", SM_WIRE_PROCESS_TMPFS, SM_WIRE_E_BAD_VALUE},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sm_wire_list list = {
            .data = cases[i].list, .bytes = (uint32_t)strlen(cases[i].list) + 1, .count = 1};
        struct sm_wire_exec exec = {.argv = ARGV("true"), .process = {.flags = cases[i].flag}};
        if (cases[i].flag == SM_WIRE_PROCESS_SYSCTLS)
            exec.process.sysctls = list;
        else if (cases[i].flag == SM_WIRE_PROCESS_GROUPS)
            exec.process.groups = list;
        else
            exec.process.tmpfs = list;
        refused(*state, &exec, cases[i].kind);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, agent_setup, agent_teardown)
    const struct CMUnitTest tests[] = {
        TEST(output_and_status),
        TEST(a_signal_is_told_as_such),
        TEST(who_was_killed_for_want_of_memory_is_told_so),
        TEST(unwanted_streams_are_null),
        TEST(no_descriptor_of_the_agent_leaks),
        TEST(signals_start_unblocked_and_in_an_own_session),
        TEST(much_output_arrives_whole_at_a_slow_reader),
        TEST(a_descendant_that_keeps_the_pipe_is_not_waited_for),
        TEST(many_at_once),
        TEST(commands_that_cannot_be_started),
        TEST(the_path_of_the_request_is_searched),
        TEST(environment),
        TEST(large_arguments),
        TEST(working_directory),
        TEST(stdin_comes_back_unchanged),
        TEST(a_command_need_not_read_its_stdin),
        TEST(a_signal_overtakes_stdin_that_nobody_reads),
        TEST(stdin_beyond_the_window_is_an_error),
        TEST(a_timeout_kills_the_group),
        TEST(a_timeout_with_grace_asks_first),
        TEST(signals_reach_the_command_or_the_whole_group),
        TEST(a_command_that_cannot_be_told_of_is_gone),
        TEST(more_arguments_than_before_reach_the_kernel),
        TEST(a_lost_connection_ends_the_command),
        TEST(a_detached_command_survives_and_is_taken_up),
        TEST(a_detached_command_may_end_alone),
        TEST(a_captured_command_is_taken_up),
        TEST(a_captured_command_is_taken_up_before_its_loss_is_known),
        TEST(a_terminal_has_a_size_and_a_name),
        TEST(resize_and_keys_reach_the_foreground),
        TEST(end_of_stdin_is_end_of_file_on_a_terminal),
        TEST(a_captured_terminal_is_typed_at_again),
        TEST(a_terminal_that_is_closed_is_opened_again),
        TEST(a_lost_terminal_ends_its_jobs),
        TEST(all_output_of_a_terminal_arrives),
        TEST(users),
        TEST(streams_can_be_opened_by_their_user),
        TEST(unknown_users),
        TEST(attributes_are_what_was_asked_for),
        TEST(attributes_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
