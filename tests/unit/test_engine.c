/*
 * A machine's process that a guest has taken over: whatever it says, its client says a sentence and
 * lives (vm/engine.h). This program is that process, too, when it is started as one; what it is to
 * do there is in its environment.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "control/machine_call.h"
#include "snapshot/page_map.h"
#include "util/clock.h"
#include "util/loop.h"
#include "util/wait.h"
#include "vm/engine.h"
#include "vm/engine_impl.h"

#define BEHAVIOUR "SM_TEST_MACHINE"
#define RAM       (64ull << 20)
#define HEIR_MS   20000 /* that an heir has the sockets of who died */

/* ---- the process ----------------------------------------------------------------------------- */

static struct sm_machine_reply reply;

static void say(int socket, const void *bytes, size_t size, int fd)
{
    sm_record_send(socket, bytes, size, &fd, fd >= 0);
}

static void end(uint32_t how, const char *message, size_t size)
{
    struct sm_machine_end_record record = {.how = how};
    memcpy(record.message, message, size);
    say(SM_MACHINE_END, &record, sizeof(record), -1);
}

/* What is not as it must be, by its name: of the answer to the start, or to any later call. */
static void misbehave(const char *how, const struct sm_machine_message *m)
{
    static char endless[sizeof(((struct sm_machine_end_record *)0)->message)];
    memset(endless, 'x', sizeof(endless));
    if (strcmp(how, "dies") == 0)
        _exit(1);
    if (strcmp(how, "leaves an heir") == 0 && m->request.call == SM_CALL_HALTED) {
        struct pollfd client = {.fd = SM_MACHINE_CLIENT, .events = POLLIN};
        if (fork() == 0)
            poll(&client, 1, HEIR_MS);
        _exit(1);
    }
    if (strcmp(how, "short") == 0)
        say(SM_MACHINE_LIFE, &reply, sizeof(reply) - 1, -1);
    if (strcmp(how, "descriptor") == 0)
        say(SM_MACHINE_LIFE, &reply, sizeof(reply), SM_MACHINE_CLIENT);
    if (strcmp(how, "refused") == 0) {
        static const char line[] = "it was refused \x1b[31mptrace\n";
        say(SM_MACHINE_END, line, sizeof(line) - 1, -1);
        _exit(1);
    }
    if (strcmp(how, "endless") == 0)
        end(SM_VM_POWERED_OFF, endless, sizeof(endless));
    if (strcmp(how, "unknown end") == 0)
        end(77, "", 1);
    if (strcmp(how, "pages") == 0 && m->request.call == SM_CALL_WRITTEN)
        reply.pages = UINT64_MAX;
    if (strcmp(how, "few pages") == 0 && m->request.call == SM_CALL_WRITTEN)
        reply.pages = RAM / SM_SNAPSHOT_PAGE;
    if (m->request.call == SM_CALL_CONSOLE)
        reply.console = UINT64_MAX;
    if (m->request.call == SM_CALL_LAST_LINES)
        strcpy(reply.text, "one\x1b[2J\ntwo");
}

static int be_machine(void)
{
    const char *how = getenv(BEHAVIOUR);
    struct sm_machine_message *m = malloc(sizeof(*m));
    const int sockets[] = {SM_MACHINE_LIFE, SM_MACHINE_QUICK};
    for (int s = 0; how && m;
         s = 1) { /* the start, then quick calls and those of life as they come */
        fd_set ready;
        FD_ZERO(&ready);
        for (int i = 0; i <= s; i++)
            FD_SET(sockets[i], &ready);
        select(SM_MACHINE_QUICK + 1, &ready, NULL, NULL, NULL);
        int from = FD_ISSET(SM_MACHINE_LIFE, &ready) ? SM_MACHINE_LIFE : SM_MACHINE_QUICK;
        if (sm_machine_take(from, m, NULL)) {
            if (strcmp(how, "stays") == 0)
                pause();
            break;
        }
        reply = (struct sm_machine_reply){0};
        misbehave(how, m);
        sm_machine_message_close(m);
        if (strcmp(how, "mute") == 0 && m->request.call == SM_CALL_KILL)
            pause();
        say(from, &reply, sizeof(reply), -1);
    }
    free(m);
    return 0;
}

/* ---- its client ------------------------------------------------------------------------------ */

static char dir[] = "/tmp/engine-XXXXXX", program[64];

static int setup(void **state)
{
    char self[512];
    (void)state;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0 || !mkdtemp(dir))
        return 1;
    self[n] = '\0';
    snprintf(program, sizeof(program), "%s/supermachine-vm", dir);
    setenv("SUPERMACHINE_LIBEXEC_DIR", dir, 1);
    return symlink(self, program);
}

static int teardown(void **state)
{
    (void)state;
    unlink(program);
    return rmdir(dir);
}

static int count_descriptors(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static int start(const char *how, struct sm_engine **engine, sm_error *err)
{
    const struct sm_engine_config config = {
        .shape = {.memory_bytes = RAM, .vcpus = 1}, .rootfs = "/dev/null", .card = {.fd = -1}};
    setenv(BEHAVIOUR, how, 1);
    assert_int_equal(sm_engine_open(engine, err), 0);
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int rc = sm_engine_restore(*engine, &config, fd, "a file", err);
    close(fd);
    return rc;
}

static void a_start_that_gets_no_answer_is_told(void **state)
{
    static const struct {
        const char *how;
        int rc;
        const char *says;
    } cases[] = {
        {"dies", -SM_EGUEST, "the process that runs the VM has died"},
        {"short", -SM_EPROTOCOL, "said what is no answer"},
        {"descriptor", -SM_EIO, "cannot read what the VM's machine says"},
        {"refused", -SM_EGUEST, "it was refused"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int before = count_descriptors();
        struct sm_engine *engine;
        sm_error err;
        int rc = start(cases[i].how, &engine, &err);
        if (rc >= 0 || !strstr(err.message, cases[i].says) || strchr(err.message, '\x1b'))
            fail_msg("%s: %d, %s", cases[i].how, rc, err.message);
        sm_engine_close(engine);
        assert_int_equal(count_descriptors(), before);
    }
}

static void an_end_that_cannot_be_is_an_internal_error(void **state)
{
    static const char *const ends[] = {"endless", "unknown end"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sm_engine *engine;
        struct sm_wait wait = sm_wait_ms(-1);
        enum sm_vm_end how;
        sm_error err;
        assert_int_equal(start(ends[i], &engine, &err), 0);
        assert_int_equal(sm_engine_wait(engine, &wait, &how, &err), 0);
        assert_int_equal(how, SM_VM_INTERNAL_ERROR);
        assert_string_equal(err.message, "the process that runs the VM has died");
        sm_engine_close(engine);
    }
}

static void pages_that_the_guest_does_not_have_are_refused(void **state)
{
    static const char *const claims[] = {"pages", "few pages"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sm_engine *engine;
        struct sm_page_set *set;
        sm_error err;
        assert_int_equal(start(claims[i], &engine, &err), 0);
        assert_int_equal(sm_engine_written(engine, &set, &err), -SM_EPROTOCOL);
        sm_engine_close(engine);
    }
}

static void what_it_shows_is_bounded_and_text(void **state)
{
    struct sm_engine *engine;
    char text[64];
    sm_error err;
    (void)state;
    assert_int_equal(start("shows", &engine, &err), 0);
    assert_int_equal(sm_engine_console(engine, text, sizeof(text)), 0);
    assert_string_equal(text, "");
    sm_engine_last_lines(engine, text, sizeof(text));
    assert_null(strchr(text, '\x1b'));
    assert_non_null(strstr(text, "\ntwo"));
    sm_engine_close(engine);
}

static void one_that_only_says_that_it_ends_is_killed(void **state)
{
    struct sm_engine *engine;
    struct sm_wait wait = sm_wait_ms(-1);
    enum sm_vm_end how;
    sm_error err;
    (void)state;
    assert_int_equal(start("agrees", &engine, &err), 0);
    sm_engine_kill(engine);
    assert_int_equal(sm_engine_wait(engine, &wait, &how, &err), 0);
    assert_int_equal(how, SM_VM_KILLED);
    sm_engine_close(engine);
}

/* As a child that the caller forks while the process is being started. */
static void its_end_is_seen_whoever_has_its_sockets(void **state)
{
    struct sm_engine *engine;
    struct sm_wait wait = sm_wait_ms(HEIR_MS / 2);
    enum sm_vm_end how;
    sm_error err;
    (void)state;
    assert_int_equal(start("leaves an heir", &engine, &err), 0);
    assert_false(sm_engine_has_halted(engine)); /* it dies of the question */
    assert_int_equal(sm_engine_wait(engine, &wait, &how, &err), 0);
    assert_int_equal(how, SM_VM_INTERNAL_ERROR);
    sm_engine_close(engine);
}

static void one_that_does_not_answer_is_killed_and_that_is_its_end(void **state)
{
    struct sm_engine *engine;
    struct sm_wait wait = sm_wait_ms(-1);
    enum sm_vm_end how;
    sm_error err;
    (void)state;
    assert_int_equal(start("mute", &engine, &err), 0);
    sm_engine_kill(engine);
    assert_int_equal(sm_engine_wait(engine, &wait, &how, &err), 0);
    assert_int_equal(how, SM_VM_KILLED);
    assert_false(sm_engine_is_paused(engine));
    sm_engine_close(engine);
}

static void one_that_does_not_end_is_killed(void **state)
{
    int before = count_descriptors();
    struct sm_engine *engine;
    sm_error err;
    (void)state;
    assert_int_equal(start("stays", &engine, &err), 0);
    sm_engine_close(engine);
    assert_int_equal(count_descriptors(), before);
}

static int lead_to_null(void *arg, uint32_t port)
{
    ++*(unsigned *)arg;
    assert_int_equal(port, 80);
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Every question is answered, but of the too many all with "nowhere", of which nobody is asked. */
static void one_that_asks_without_end_is_refused_most(void **state)
{
    enum { ROUNDS = 64, AT_ONCE = 16 };
    const struct sm_machine_stream ask = {.kind = SM_STREAM_ASK, .ticket = 7, .port = 80};
    struct sm_machine_stream said;
    struct sm_guest_link link;
    struct sm_engine *engine;
    struct sm_loop *loop;
    unsigned asked = 0, led = 0, refused = 0;
    int ends[2];
    (void)state;
    assert_int_equal(sm_loop_create(&loop, NULL), 0);
    assert_int_equal(sm_engine_open(&engine, NULL), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    engine->streams = ends[0];
    int machine = ends[1];
    sm_engine_link(engine, loop, &link);
    link.accept_any(link.arg, lead_to_null, &asked);
    assert_int_equal(sm_record_take_now(machine, &said, sizeof(said), NULL, 0, NULL), sizeof(said));
    int64_t before = sm_now_ms();
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < AT_ONCE; i++)
            assert_int_equal(sm_record_send_now(machine, &ask, sizeof(ask), NULL, 0), 0);
        sm_loop_turn(loop);
        for (int i = 0; i < AT_ONCE; i++) {
            int fd = -1;
            unsigned n = 0;
            assert_int_equal(
                sm_record_take_now(machine, &said, sizeof(said), &fd, 1, &n), sizeof(said));
            assert_true(said.kind == SM_STREAM_LEAD && said.ticket == 7);
            led += n;
            refused += n == 0;
            if (n)
                close(fd);
        }
    }
    assert_int_equal(led + refused, ROUNDS * AT_ONCE);
    assert_int_equal(led, asked);
    assert_in_range(led, 256, 256 + 1 + (sm_now_ms() - before) * 128 / 1000);
    close(machine);
    sm_engine_close(engine);
    sm_loop_destroy(loop);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "machine") == 0)
        return be_machine();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_start_that_gets_no_answer_is_told),
        cmocka_unit_test(an_end_that_cannot_be_is_an_internal_error),
        cmocka_unit_test(pages_that_the_guest_does_not_have_are_refused),
        cmocka_unit_test(what_it_shows_is_bounded_and_text),
        cmocka_unit_test(one_that_only_says_that_it_ends_is_killed),
        cmocka_unit_test(its_end_is_seen_whoever_has_its_sockets),
        cmocka_unit_test(one_that_does_not_answer_is_killed_and_that_is_its_end),
        cmocka_unit_test(one_that_does_not_end_is_killed),
        cmocka_unit_test(one_that_asks_without_end_is_refused_most),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
