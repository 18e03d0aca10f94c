/*
 * The network process and its client: what they say to each other; when the process is started, and
 * again; what of its words is believed; and that it ends. The program is a script in its place, or
 * the real one beside this test's build.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glob.h>

#include "net/frame.h"
#include "net/frame_socket.h"
#include "net/process_message.h"
#include "net/resolv_conf.h"
#include "net/user_net.h"
#include "patience.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "vm/network.h"
#include "vm/network_process.h"

/* ---- messages -------------------------------------------------------------------------------- */

static void orders_are_read_as_they_were_written(void **state)
{
    (void)state;
    static const char policy[] = "layer none\nallow 192.0.2.1\n",
                      resolv[] = "nameserver 192.0.2.2\n";
    const struct sm_network_order orders[] = {
        {.kind = SM_NETWORK_RESOLV, .resolv_conf = resolv, .resolv_conf_len = strlen(resolv)},
        {.kind = SM_NETWORK_RESOLV},
        {.kind = SM_NETWORK_SETUP,
            .tap = true,
            .link = {{0xfd, 1, [15] = 9}},
            .link_prefix = 64,
            .policy = policy,
            .policy_len = strlen(policy)},
        {.kind = SM_NETWORK_SETUP,
            .reports = true,
            .policy = policy,
            .policy_len = strlen(policy),
            .resolv_conf = resolv,
            .resolv_conf_len = strlen(resolv)},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(orders); i++) {
        const struct sm_network_order *o = &orders[i];
        struct sm_network_order back;
        uint8_t *record;
        size_t len;
        assert_int_equal(sm_network_order_encode(o, &record, &len, NULL), 0);
        assert_int_equal(sm_network_order_decode(record, len, &back, NULL), 0);
        assert_int_equal(back.kind, o->kind);
        assert_int_equal(back.tap, o->tap);
        assert_int_equal(back.reports, o->reports);
        assert_memory_equal(&back.link, &o->link, sizeof(back.link));
        assert_int_equal(back.link_prefix, o->link_prefix);
        assert_int_equal(back.policy_len, o->policy_len);
        assert_memory_equal(back.policy, o->policy ? o->policy : "", o->policy_len);
        assert_int_equal(back.resolv_conf_len, o->resolv_conf_len);
        assert_memory_equal(
            back.resolv_conf, o->resolv_conf ? o->resolv_conf : "", o->resolv_conf_len);
        for (size_t cut = 0; cut < len; cut++) /* of no part of it is anything believed */
            assert_int_equal(sm_network_order_decode(record, cut, &back, NULL), -SM_EPROTOCOL);
        free(record);
    }
}

static void malformed_orders_are_refused(void **state)
{
    (void)state;
    const struct {
        size_t at;
        uint32_t value;
    } rows[] = {{0, 0}, {0, 3}, {0, SM_NETWORK_DENIED}, {4, 4}, {4, UINT32_MAX}, {8, 129}, {28, 1},
        {28, UINT32_MAX}, {32, 1}, {32, UINT32_MAX}};
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct sm_network_order order = {.kind = SM_NETWORK_SETUP};
        uint8_t *record;
        size_t len;
        assert_int_equal(sm_network_order_encode(&order, &record, &len, NULL), 0);
        assert_int_equal(sm_network_order_decode(record, len, &order, NULL), 0);
        sm_store_le32(record + rows[i].at, rows[i].value);
        assert_int_equal(sm_network_order_decode(record, len, &order, NULL), -SM_EPROTOCOL);
        free(record);
    }
}

static void reports_are_read_as_they_were_written(void **state)
{
    (void)state;
    uint8_t record[SM_NETWORK_MAX_REPORT];
    struct sm_network_report back;
    const struct sm_network_report denials[] = {
        {.kind = SM_NETWORK_DENIED,
            .denial = {.verdict = SM_VERDICT_RULE,
                .protocol = SM_IP_TCP,
                .port = 65535,
                .suppressed = 1ull << 40,
                .addr = {{[10] = 255, [11] = 255, 192, 0, 2, 1}}}},
        {.kind = SM_NETWORK_DENIED,
            .denial = {.verdict = SM_VERDICT_NAME, .port = SM_NO_PORT, .name = "a.test"}},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(denials); i++) {
        const struct sm_denial *d = &denials[i].denial;
        size_t len = sm_network_report_encode(&denials[i], record);
        assert_true(sm_network_report_decode(record, len, &back));
        assert_int_equal(back.kind, SM_NETWORK_DENIED);
        assert_int_equal(back.denial.verdict, d->verdict);
        assert_int_equal(back.denial.protocol, d->protocol);
        assert_int_equal(back.denial.port, d->port);
        assert_int_equal(back.denial.suppressed, d->suppressed);
        assert_memory_equal(&back.denial.addr, &d->addr, sizeof(d->addr));
        assert_int_equal(back.denial.name != NULL, d->name != NULL);
        if (d->name)
            assert_string_equal(back.denial.name, d->name);
    }
    /* The root of all names is a name, too; a long one is cut. */
    static char name[2000];
    memset(name, 'n', sizeof(name) - 1);
    struct sm_network_report report = denials[1];
    report.denial.name = "";
    assert_true(sm_network_report_decode(record, sm_network_report_encode(&report, record), &back));
    assert_string_equal(back.denial.name, ".");
    report.denial.name = name;
    assert_true(sm_network_report_decode(record, sm_network_report_encode(&report, record), &back));
    assert_int_equal(strlen(back.denial.name), SM_NETWORK_MAX_SENTENCE);
    const struct sm_network_report trouble = {
        .kind = SM_NETWORK_TROUBLE, .text = "no\033[31m luck\n"};
    assert_true(
        sm_network_report_decode(record, sm_network_report_encode(&trouble, record), &back));
    assert_string_equal(back.text, "no?[31m luck?");
    static const char line[] = "the network's process was refused the system call open (2)\n";
    assert_true(sm_network_report_decode((const uint8_t *)line, strlen(line), &back));
    assert_int_equal(back.kind, SM_NETWORK_TROUBLE);
    assert_int_equal(strlen(back.text), strlen(line) - 1);
}

static void hostile_reports_are_nonsense(void **state)
{
    (void)state;
    const struct {
        size_t at;
        uint32_t value;
    } rows[] = {{0, 0}, {0, 1}, {0, 31}, {4, SM_VERDICT_ALLOW}, {4, SM_VERDICT_COUNT},
        {4, UINT32_MAX}, {8, 256}, {12, 65536}, {12, (uint32_t)-2}, {12, 0x80000000}};
    static uint8_t record[SM_NETWORK_MAX_REPORT + 1];
    const struct sm_network_report report = {.kind = SM_NETWORK_DENIED,
        .denial = {.verdict = SM_VERDICT_NAME, .port = 1, .name = "a.test"}};
    struct sm_network_report back;
    size_t len = 0;
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        len = sm_network_report_encode(&report, record);
        sm_store_le32(record + rows[i].at, rows[i].value);
        assert_false(sm_network_report_decode(record, len, &back));
    }
    len = sm_network_report_encode(&report, record);
    for (int c = 0; c < 256; c++) { /* what is no text is in no name */
        record[len - 1] = (uint8_t)c;
        assert_int_equal(sm_network_report_decode(record, len, &back), c > ' ' && c < 0x7f);
    }
    for (size_t n = 0; n < 40; n++)
        assert_false(sm_network_report_decode(record, n, &back));
    memset(record + 40, 'n', sizeof(record) - 40);
    assert_true(sm_network_report_decode(record, 40 + SM_NETWORK_MAX_SENTENCE, &back));
    assert_false(sm_network_report_decode(record, 40 + SM_NETWORK_MAX_SENTENCE + 1, &back));
    memset(record, ' ', sizeof(record));
    assert_false(sm_network_report_decode(record, SM_NETWORK_MAX_SENTENCE + 1, &back));
}

/* ---- a client -------------------------------------------------------------------------------- */

#define MAX_LINES 64

struct client {
    struct sm_loop *loop;
    struct sm_vm_network network;
    struct sm_network_process *process;
    int machine; /* the machine's end */
    bool speaks_first;
    unsigned replugs, n_lines;
    char lines[MAX_LINES][512];
    char dir[64], program[96], conf[96]; /* conf "": the host's resolv.conf */
};

static void on_notice(void *arg, const char *line)
{
    struct client *c = arg;
    if (c->n_lines < MAX_LINES)
        snprintf(c->lines[c->n_lines], sizeof(c->lines[0]), "%s", line);
    c->n_lines++;
}

static bool was_told(const struct client *c, const char *words)
{
    for (unsigned i = 0; i < c->n_lines && i < MAX_LINES; i++)
        if (strstr(c->lines[i], words))
            return true;
    return false;
}

static void on_replug(void *arg, int fd)
{
    struct client *c = arg;
    c->replugs++;
    if (c->machine >= 0) { /* nobody but the process had the other end */
        struct pollfd other = {.fd = c->machine};
        assert_int_equal(poll(&other, 1, 0), 1);
        assert_true(other.revents & POLLHUP);
        close(c->machine);
    }
    c->machine = fd;
}

/* The real program where there is no script. Its path is this test's alone, so that it can be
 * found. */
static void make_program(struct client *c, const char *script)
{
    strcpy(c->dir, "/tmp/sm-test-network-XXXXXX");
    assert_non_null(mkdtemp(c->dir));
    snprintf(c->program, sizeof(c->program), "%s/program", c->dir);
    if (script) {
        FILE *f = fopen(c->program, "we");
        assert_non_null(f);
        fprintf(f, "#!/bin/sh\necho begun >>%s/starts\n%s\n", c->dir, script);
        assert_int_equal(fchmod(fileno(f), 0700), 0);
        assert_int_equal(fclose(f), 0);
        return;
    }
    char self[PATH_MAX], real[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    assert_true(n > 0);
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    snprintf(real, sizeof(real), "%s/../../supermachine-vm", self);
    assert_int_equal(symlink(real, c->program), 0);
}

static void watch(struct client *c, const char *egress)
{
    const struct sm_vm_network_config config = {.egress = egress};
    const struct sm_vm_events events = {.notice = on_notice, .notice_arg = c};
    assert_int_equal(sm_vm_network_init(&c->network, &config, &events, NULL), 0);
    if (*c->conf)
        c->network.resolv_conf = c->conf;
    const struct sm_network_process_config how = {
        .network = &c->network, .replug = on_replug, .arg = c, .program = c->program};
    assert_int_equal(sm_loop_create(&c->loop, NULL), 0);
    assert_int_equal(
        sm_network_process_create(&how, &c->machine, &c->speaks_first, &c->process, NULL), 0);
    assert_int_equal(sm_network_process_watch(c->process, c->loop, NULL), 0);
}

static struct client *begin(const char *script)
{
    struct client *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    make_program(c, script);
    watch(c, "layer none\n");
    return c;
}

static unsigned starts(const struct client *c)
{
    char path[96], line[16];
    unsigned n = 0;
    snprintf(path, sizeof(path), "%s/starts", c->dir);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        n++;
    if (f)
        fclose(f);
    return n;
}

/* The process; 0: there is none. */
static pid_t find(const struct client *c)
{
    glob_t all;
    pid_t found = 0;
    assert_int_equal(glob("/proc/[0-9]*/cmdline", 0, NULL, &all), 0);
    for (size_t i = 0; i < all.gl_pathc && !found; i++) {
        char words[512] = {0};
        FILE *f = fopen(all.gl_pathv[i], "re");
        if (!f)
            continue;
        size_t n = fread(words, 1, sizeof(words) - 1, f);
        fclose(f);
        if (memmem(words, n, c->program, strlen(c->program)))
            found = (pid_t)strtol(all.gl_pathv[i] + strlen("/proc/"), NULL, 10);
    }
    globfree(&all);
    return found;
}

static void end(struct client *c)
{
    sm_close(sm_steal_fd(&c->machine));
    sm_network_process_destroy(c->process);
    assert_int_equal(find(c), 0);
    sm_vm_network_clear(&c->network);
    sm_loop_destroy(c->loop);
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", c->dir);
    assert_int_equal(system(command), 0);
    free(c);
}

/* Which watch from now on there is no memory for; 0: none. */
static unsigned refuse_watch;

int __real_sm_loop_add(struct sm_loop *loop, int fd, uint32_t events, sm_loop_watch_fn *fn,
    void *arg, struct sm_loop_watch **watch, sm_error *err);
int __wrap_sm_loop_add(struct sm_loop *loop, int fd, uint32_t events, sm_loop_watch_fn *fn,
    void *arg, struct sm_loop_watch **watch, sm_error *err);
int __wrap_sm_loop_add(struct sm_loop *loop, int fd, uint32_t events, sm_loop_watch_fn *fn,
    void *arg, struct sm_loop_watch **watch, sm_error *err)
{
    if (refuse_watch && --refuse_watch == 0)
        return -SM_ENOMEM;
    return __real_sm_loop_add(loop, fd, events, fn, arg, watch, err);
}

static unsigned conf_reads;

char *__real_sm_resolv_file_read(struct sm_resolv_file *file);
char *__wrap_sm_resolv_file_read(struct sm_resolv_file *file);
char *__wrap_sm_resolv_file_read(struct sm_resolv_file *file)
{
    conf_reads++;
    return __real_sm_resolv_file_read(file);
}

/* Until what is waited for, or PATIENCE_MS are over. */
#define await(c, what)                                                                             \
    do {                                                                                           \
        int64_t until_ = sm_deadline(PATIENCE_MS);                                                 \
        while (!(what)) {                                                                          \
            sm_loop_turn((c)->loop);                                                               \
            if (sm_deadline_left(until_) == 0)                                                     \
                fail_msg("not within time: %s", #what);                                            \
            usleep(1000);                                                                          \
        }                                                                                          \
    } while (0)

static void send_frame(const struct client *c, const void *frame, size_t len)
{
    uint8_t record[SM_NET_HDR + 200] = {0};
    memcpy(record + SM_NET_HDR, frame, len);
    assert_int_equal(send(c->machine, record, SM_NET_HDR + len, MSG_NOSIGNAL), SM_NET_HDR + len);
}

static void send_anything(const struct client *c)
{
    static const uint8_t frame[60];
    send_frame(c, frame, sizeof(frame));
}

static void it_is_started_when_the_guest_first_sends(void **state)
{
    (void)state;
    struct client *c = begin("exec sleep 1000");
    assert_false(c->speaks_first);
    sm_loop_turn(c->loop);
    usleep(50000);
    assert_int_equal(starts(c), 0);
    send_anything(c);
    await(c, starts(c) == 1);
    send_anything(c);
    sm_loop_turn(c->loop);
    assert_int_equal(c->n_lines, 0);
    end(c);
}

/* The machine cannot be told from one that has lost its new end (it had no descriptor left, say),
 * so it is given another one, again and again. */
static void a_machine_that_ends_without_a_word_starts_nothing(void **state)
{
    (void)state;
    struct client *c = begin("exec sleep 1000");
    sm_close(sm_steal_fd(&c->machine));
    sm_loop_turn(c->loop);
    usleep(50000);
    assert_int_equal(starts(c), 0);
    int64_t before = sm_now_ms();
    for (unsigned i = 1; i <= 2; i++) {
        sm_close(sm_steal_fd(&c->machine));
        await(c, c->replugs == i);
    }
    assert_true(sm_now_ms() - before > 1500);
    assert_int_equal(starts(c), 0);
    assert_int_equal(c->n_lines, 0);
    send_anything(c);
    await(c, starts(c) == 1);
    end(c);
}

static void one_whose_client_has_no_descriptor_left_is_replaced_once_it_has(void **state)
{
    (void)state;
    struct client *c = begin("while [ ! -e $0.go ]; do sleep 0.01; done; exit 1");
    char go[128];
    snprintf(go, sizeof(go), "%s.go", c->program);
    struct rlimit old, none = {3, 3};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none.rlim_max = old.rlim_max;
    send_anything(c);
    await(c, starts(c) == 1);
    assert_int_equal(mkdir(go, 0700), 0); /* the next ends at once, too */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int64_t until = sm_deadline(PATIENCE_MS);
    while (c->n_lines < 2 && sm_deadline_left(until) > 0)
        sm_loop_turn(c->loop);
    until = sm_deadline(1500); /* another time, of which nothing is told */
    while (sm_deadline_left(until) > 0) {
        sm_loop_turn(c->loop);
        usleep(1000);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(c->n_lines, 2);
    assert_true(was_told(c, "connections are lost"));
    assert_int_equal(c->replugs, 0);
    await(c, c->replugs == 1);
    send_anything(c);
    await(c, c->replugs == 2);
    assert_int_equal(starts(c), 2);
    end(c);
}

static void one_that_dies_is_replaced_and_not_too_often(void **state)
{
    (void)state;
    struct client *c = begin("exit 1");
    const unsigned more = SM_NETWORK_STARTS_BURST + 2; /* each of which takes a second */
    int64_t before = sm_now_ms();
    for (unsigned i = 1; i <= more; i++) {
        send_anything(c);
        await(c, c->replugs == i);
        assert_int_equal(starts(c), i);
    }
    assert_true(sm_now_ms() - before > 1500);
    assert_int_equal(c->n_lines, more);
    assert_true(was_told(c, "connections are lost"));
    end(c);
}

static void a_program_that_cannot_be_started_is_told_once(void **state)
{
    (void)state;
    struct client *c = begin("exit 1");
    assert_int_equal(chmod(c->program, 0), 0);
    assert_int_equal(unlink(c->program), 0);
    send_anything(c);
    await(c, c->n_lines == 1);
    assert_true(was_told(c, "cannot start"));
    assert_int_equal(c->replugs, 0);
    end(c);
}

static void meets_no_child(void)
{
    assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    assert_int_equal(errno, ECHILD);
}

/* Who is given orphans (process 1 of a container) is given none of ours, however it ended. */
static void one_whom_orphans_are_given_to_meets_none(void **state)
{
    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    struct client *c = begin("exit 1");
    send_anything(c);
    await(c, c->replugs == 1);
    meets_no_child();
    for (unsigned nth = 1; nth <= 2; nth++) { /* it runs, and cannot be watched */
        send_anything(c);
        refuse_watch = nth;
        await(c, refuse_watch == 0);
        meets_no_child();
        await(c, c->replugs == 1 + nth);
    }
    assert_int_equal(unlink(c->program), 0);
    send_anything(c);
    await(c, was_told(c, "cannot start"));
    meets_no_child();
    end(c);
    c = begin("exec sleep 1000");
    send_anything(c);
    await(c, starts(c) == 1);
    sm_close(sm_steal_fd(&c->machine));
    sm_network_process_destroy(sm_steal_ptr(&c->process));
    meets_no_child();
    end(c);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

static void one_that_talks_nonsense_is_ended(void **state)
{
    (void)state;
    struct client *c = begin("printf '\\001\\000' >&3; exec sleep 1000");
    send_anything(c);
    await(c, c->replugs == 1);
    assert_true(was_told(c, "nonsense"));
    end(c);
}

static void its_words_are_text_and_few(void **state)
{
    (void)state;
    struct client *c =
        begin("i=0; while [ $i -lt 200 ]; do printf 'a\\033b' >&3; i=$((i + 1)); done\n"
              "echo done >>$0.done; exec sleep 1000");
    char path[128];
    snprintf(path, sizeof(path), "%s.done", c->program);
    send_anything(c);
    await(c, access(path, F_OK) == 0);
    sm_loop_turn(c->loop);
    assert_in_range(c->n_lines, 10, 40);
    assert_string_equal(c->lines[0], "a?b");
    end(c);
}

static void write_conf(const struct client *c, const char *text)
{
    FILE *f = fopen(c->conf, "we");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static bool was_sent(const struct client *c, const char *words)
{
    char path[160], text[4096] = {0};
    snprintf(path, sizeof(path), "%s.orders", c->program);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof(text), f) : 0;
    if (f)
        fclose(f);
    return memmem(text, n, words, strlen(words)) != NULL;
}

static off_t orders_size(const struct client *c)
{
    char path[160];
    struct stat st;
    snprintf(path, sizeof(path), "%s.orders", c->program);
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

/* A script's question whether resolv.conf has changed, as a file. */
static void write_asks(const struct client *c)
{
    char path[160];
    snprintf(path, sizeof(path), "%s.asks", c->program);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    uint8_t record[SM_NETWORK_MAX_REPORT];
    const struct sm_network_report asks = {.kind = SM_NETWORK_ASKED};
    size_t len = sm_network_report_encode(&asks, record);
    assert_int_equal(fwrite(record, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

/* It asks whenever the guest has asked its name server; what has not changed is not sent again. */
static void changed_name_servers_are_told_to_it(void **state)
{
    (void)state;
    struct client *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    make_program(c, "while :; do dd bs=300000 count=1 <&3 >>$0.orders 2>/dev/null\n"
                    "dd if=$0.asks bs=40 count=1 >&3 2>/dev/null; sleep 0.02; done");
    snprintf(c->conf, sizeof(c->conf), "%s/resolv.conf", c->dir);
    write_conf(c, "nameserver 192.0.2.1\n");
    write_asks(c);
    watch(c, NULL);
    send_anything(c);
    await(c, was_sent(c, "192.0.2.1"));
    write_conf(c, "nameserver 192.0.2.22\n");
    await(c, was_sent(c, "192.0.2.22"));
    off_t had = orders_size(c);
    assert_int_equal(unlink(c->conf), 0);
    await(c, orders_size(c) > had); /* that there is no file now, */
    had = orders_size(c);
    for (unsigned i = 0; i < 20; i++) { /* once */
        sm_loop_turn(c->loop);
        usleep(10000);
    }
    assert_int_equal(orders_size(c), had);
    end(c);
}

static void one_that_asks_without_end_is_seldom_answered(void **state)
{
    (void)state;
    struct client *c = begin("i=0; while [ $i -lt 100 ]; do\n"
                             "dd if=$0.asks bs=40 count=1 >&3 2>/dev/null; i=$((i + 1)); done\n"
                             "printf 'that was all' >&3; exec sleep 1000");
    write_asks(c);
    conf_reads = 0;
    int64_t before = sm_now_ms();
    send_anything(c);
    await(c, was_told(c, "that was all"));
    int64_t seconds = (sm_now_ms() - before + 999) / 1000;
    assert_in_range(conf_reads, 2, 1 + 4 + 4 * seconds); /* the first is what it starts with */
    end(c);
}

/* ---- the real one ---------------------------------------------------------------------------- */

static void configure(const struct client *c)
{
    const struct {
        uint32_t kind, number;
        uint64_t features;
    } control = {SM_FRAME_CONFIGURE, 1, 0};
    assert_int_equal(send(c->machine, &control, sizeof(control), MSG_NOSIGNAL), sizeof(control));
}

/* Asks who has 10.0.2.2, and is answered. */
static void expect_an_answer(struct client *c)
{
    static const uint8_t arp[60] = {255, 255, 255, 255, 255, 255, 2, 0x73, 0x6d, 0, 0, 1, 8, 6, 0,
        1, 8, 0, 6, 4, 0, 1, 2, 0x73, 0x6d, 0, 0, 1, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2};
    uint8_t record[SM_NET_HDR + 1600];
    ssize_t n;
    configure(c);
    send_frame(c, arp, sizeof(arp));
    await(c, (n = recv(c->machine, record, sizeof(record), MSG_DONTWAIT)) > 0);
    assert_int_equal(n, 16);
    assert_int_equal(sm_load_le32(record), SM_FRAME_CONFIGURED);
    await(c, (n = recv(c->machine, record, sizeof(record), MSG_DONTWAIT)) > 0);
    assert_true(
        n > SM_NET_HDR + 14 && record[SM_NET_HDR + 12] == 8 && record[SM_NET_HDR + 13] == 6);
}

static void the_network_answers_judges_and_comes_back(void **state)
{
    (void)state;
    struct client *c = begin(NULL);
    expect_an_answer(c);
    pid_t pid = find(c);
    assert_true(pid > 0 && pid != getpid());
    uint8_t frame[120];
    const uint8_t mac[6] = {2};
    struct sm_udp_packet packet = {.dst_mac = mac,
        .src_mac = sm_user_net_mac,
        .sport = 9,
        .dport = 7,
        .payload = "x",
        .len = 1};
    packet.src = sm_subnet_v4.guest;
    assert_true(sm_ip_parse("192.0.2.7", &packet.dst));
    send_frame(c, frame, sm_frame_make_udp(frame, sizeof(frame), &packet));
    await(c, c->n_lines == 1);
    assert_true(was_told(c, "denied: UDP 192.0.2.7 port 7"));
    assert_int_equal(kill(pid, SIGKILL), 0);
    await(c, c->replugs == 1);
    assert_int_equal(find(c), 0);
    expect_an_answer(c);
    assert_true(find(c) > 0);
    end(c);
}

static void it_ends_with_the_machine_and_says_so(void **state)
{
    (void)state;
    struct client *c = begin(NULL);
    expect_an_answer(c);
    sm_close(sm_steal_fd(&c->machine));
    await(c, find(c) == 0);
    await(c, c->replugs == 1);
    assert_int_equal(c->n_lines, 0); /* nothing has been lost */
    end(c);
}

/* By SIGKILL, with the ends of all its sockets held by another process. */
static void it_ends_with_its_client(void **state)
{
    (void)state;
    struct client *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    make_program(c, NULL);
    int hold[2];
    assert_int_equal(pipe2(hold, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(hold[1]);
        watch(c, NULL);
        expect_an_answer(c);
        char byte;
        if (fork() == 0)
            _exit((int)read(hold[0], &byte, 1));
        kill(getpid(), SIGKILL);
    }
    close(hold[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    int64_t until = sm_deadline(PATIENCE_MS);
    while (find(c) != 0 && sm_deadline_left(until) > 0)
        usleep(1000);
    assert_int_equal(find(c), 0);
    close(hold[1]);
    assert_int_equal(unlink(c->program), 0);
    assert_int_equal(rmdir(c->dir), 0);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_are_read_as_they_were_written),
        cmocka_unit_test(malformed_orders_are_refused),
        cmocka_unit_test(reports_are_read_as_they_were_written),
        cmocka_unit_test(hostile_reports_are_nonsense),
        cmocka_unit_test(it_is_started_when_the_guest_first_sends),
        cmocka_unit_test(a_machine_that_ends_without_a_word_starts_nothing),
        cmocka_unit_test(one_whose_client_has_no_descriptor_left_is_replaced_once_it_has),
        cmocka_unit_test(one_that_dies_is_replaced_and_not_too_often),
        cmocka_unit_test(a_program_that_cannot_be_started_is_told_once),
        cmocka_unit_test(one_whom_orphans_are_given_to_meets_none),
        cmocka_unit_test(one_that_talks_nonsense_is_ended),
        cmocka_unit_test(its_words_are_text_and_few),
        cmocka_unit_test(changed_name_servers_are_told_to_it),
        cmocka_unit_test(one_that_asks_without_end_is_seldom_answered),
        cmocka_unit_test(the_network_answers_judges_and_comes_back),
        cmocka_unit_test(it_ends_with_the_machine_and_says_so),
        cmocka_unit_test(it_ends_with_its_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
