/* The guest's name server before resolvers that are silent, gone, or of no help: who is asked when,
 * what the guest gets, who is asked first then. The resolvers are this test's, on the loopback, and
 * so is the clock: it moves when nothing else does, so that a host that stalls changes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net/dns_proxy.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define SERVERS 3
#define STEP_MS 250
#define SILENT  16 /* instead of a code of an answer */
#define GONE    17 /* nobody listens there */

struct world {
    struct sm_loop *loop;
    struct sm_egress egress;
    struct sm_dns_proxy *proxy;
    char conf[32];
    int servers[SERVERS]; /* -1: nobody */
    unsigned written;     /* the file, so often */
    int answers[2];       /* the answers to the guest come through this pair */
};

static const uint8_t query[] = {
    0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'x', 4, 't', 'e', 's', 't', 0, 0, 1, 0, 1};

static int64_t now_ms = 1000000;

int __wrap_clock_gettime(clockid_t clock, struct timespec *t);

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    *t = (struct timespec){.tv_sec = now_ms / 1000, .tv_nsec = now_ms % 1000 * 1000000};
    return 0;
}

static void on_answer(void *arg, const struct sm_dns_client *client, const uint8_t *msg, size_t len)
{
    struct world *w = arg;
    assert_int_equal(client->port, 4000);
    assert_int_equal(send(w->answers[1], msg, len, 0), len);
}

static int server(int type, uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static void write_conf(struct world *w, const uint16_t *ports, unsigned n)
{
    FILE *f = fopen(w->conf, "w");
    assert_non_null(f);
    for (unsigned i = 0; i < n; i++)
        fprintf(f, "nameserver [127.0.0.1]:%u\n", ports[i]);
    /* Within a tick it is its size alone that tells it from the one before. */
    fprintf(f, "#%*s\n", (int)(++w->written * 16), "");
    fclose(f);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    *w = (struct world){.conf = "/tmp/sm-test-resolv-XXXXXX"};
    int fd = mkstemp(w->conf);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(sm_loop_create(&w->loop, NULL), 0);
    sm_egress_init(&w->egress, &(struct sm_policy){0}, true, NULL, NULL);
    assert_int_equal(
        sm_dns_proxy_create(w->loop, &w->egress, w->conf, on_answer, w, &w->proxy, NULL), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, w->answers), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < SERVERS; i++)
        if (w->servers[i] > 0)
            close(w->servers[i]);
    sm_dns_proxy_destroy(w->proxy);
    sm_egress_clear(&w->egress);
    sm_loop_destroy(w->loop);
    close(w->answers[0]);
    close(w->answers[1]);
    unlink(w->conf);
    free(w);
    return 0;
}

/* What each resolver does, in the order of the file; at most SERVERS. */
static void resolvers(struct world *w, unsigned n, const unsigned *does)
{
    uint16_t ports[SERVERS];
    for (unsigned i = 0; i < n; i++) {
        if (w->servers[i] > 0)
            close(w->servers[i]);
        w->servers[i] = server(SOCK_DGRAM, &ports[i]);
        if (does[i] == GONE) {
            close(w->servers[i]);
            w->servers[i] = -1;
        }
    }
    write_conf(w, ports, n);
}

/* A question that has come to a resolver. */
struct asked {
    uint8_t msg[512];
    size_t len;
    struct sockaddr_in from;
};

static bool was_asked(const struct world *w, unsigned server, struct asked *q)
{
    socklen_t len = sizeof(q->from);
    ssize_t n = w->servers[server] < 0 ? -1
                                       : recvfrom(w->servers[server], q->msg, sizeof(q->msg),
                                             MSG_DONTWAIT, (struct sockaddr *)&q->from, &len);
    q->len = n < 0 ? 0 : (size_t)n;
    return n >= 0;
}

static void reply(const struct world *w, unsigned server, struct asked *q, unsigned code)
{
    q->msg[2] |= 0x80;
    q->msg[3] = (uint8_t)code;
    assert_int_equal(
        sendto(w->servers[server], q->msg, q->len, 0, (struct sockaddr *)&q->from, sizeof(q->from)),
        q->len);
}

/* Answers what has come; appends the digit of each that was asked. False: nobody has answered. */
static bool serve(struct world *w, unsigned n, const unsigned *does, char *asked)
{
    struct asked q;
    bool any = false;
    for (unsigned i = 0; i < n; i++) {
        if (!was_asked(w, i, &q))
            continue;
        snprintf(asked + strlen(asked), 16 - strlen(asked), "%u", i);
        if (does[i] == SILENT)
            continue;
        reply(w, i, &q, does[i]);
        any = true;
    }
    return any;
}

/* Time passes, once the loopback has brought what is under way. */
static void step(struct world *w)
{
    struct pollfd fds[SERVERS];
    for (unsigned i = 0; i < SERVERS; i++)
        fds[i] = (struct pollfd){.fd = w->servers[i] > 0 ? w->servers[i] : -1, .events = POLLIN};
    if (poll(fds, SERVERS, 10) == 0)
        now_ms += STEP_MS;
}

static void begin(struct world *w)
{
    sm_dns_proxy_ask(w->proxy, &(struct sm_dns_client){.port = 4000}, query, sizeof(query));
}

/* What the guest was answered, or -1. */
static int answered(struct world *w)
{
    uint8_t msg[512];
    if (recv(w->answers[0], msg, sizeof(msg), MSG_DONTWAIT) < 0)
        return -1;
    assert_memory_equal(msg, query, 2); /* the guest's number */
    return msg[3] & 15;
}

/* The guest's question: what it is answered, and in *asked who was asked for that. */
static unsigned ask(struct world *w, unsigned n, const unsigned *does, char asked[16])
{
    int code;
    asked[0] = 0;
    begin(w);
    while ((code = answered(w)) < 0) {
        if (!serve(w, n, does, asked))
            step(w);
        sm_loop_turn(w->loop);
    }
    return (unsigned)code;
}

static void the_next_one_is_asked_and_the_silent_one_comes_last_then(void **state)
{
    struct world *w = *state;
    static const struct {
        unsigned n, does[SERVERS], code;
        const char *asked, *then; /* by the first question, by the second */
    } cases[] = {
        {1, {0}, 0, "0", "0"},
        {2, {0, 0}, 0, "0", "0"},
        {2, {SILENT, 0}, 0, "01", "1"},
        {2, {GONE, 0}, 0, "1", "1"},
        {3, {SILENT, SM_DNS_RCODE_REFUSED, 0}, 0, "012", "2"},
        /* Who answers is the first one still. */
        {2, {SM_DNS_RCODE_SERVFAIL, 0}, 0, "01", "01"},
        {2, {SM_DNS_RCODE_REFUSED, 0}, 0, "01", "01"},
        {2, {SM_DNS_RCODE_NXDOMAIN, 0}, SM_DNS_RCODE_NXDOMAIN, "0", "0"},
        /* Nobody helps: what the last one said, at once. */
        {1, {SM_DNS_RCODE_REFUSED}, SM_DNS_RCODE_REFUSED, "0", "0"},
        {2, {SM_DNS_RCODE_REFUSED, SM_DNS_RCODE_SERVFAIL}, SM_DNS_RCODE_SERVFAIL, "01", "01"},
        {1, {GONE}, SM_DNS_RCODE_SERVFAIL, "", ""},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        char asked[16];
        resolvers(w, cases[i].n, cases[i].does);
        assert_int_equal(ask(w, cases[i].n, cases[i].does, asked), cases[i].code);
        assert_string_equal(asked, cases[i].asked);
        assert_int_equal(ask(w, cases[i].n, cases[i].does, asked), cases[i].code);
        assert_string_equal(asked, cases[i].then);
    }
}

/* The question as it comes to a resolver, sooner or later. */
static void wait_for(struct world *w, unsigned server, struct asked *q)
{
    while (!was_asked(w, server, q)) {
        step(w);
        sm_loop_turn(w->loop);
    }
}

/* One that is slow is not lost: its answer counts while others are asked. */
static void an_answer_that_comes_late_is_taken(void **state)
{
    struct world *w = *state;
    static const unsigned silent[] = {SILENT, SILENT}, late[] = {0, SILENT};
    char again[16];
    struct asked first, second;
    resolvers(w, 2, silent);
    begin(w);
    wait_for(w, 0, &first);
    wait_for(w, 1, &second);
    reply(w, 0, &first, 0);
    sm_loop_turn(w->loop);
    assert_int_equal(answered(w), 0);
    assert_int_equal(ask(w, 2, late, again), 0);
    assert_string_equal(again, "0"); /* it did answer */
}

/* Who says that he cannot help, late, is not waited for once more. */
static void the_only_one_that_cannot_help_is_believed_at_once(void **state)
{
    struct world *w = *state;
    static const unsigned silent[] = {SILENT};
    struct asked first, second;
    resolvers(w, 1, silent);
    begin(w);
    wait_for(w, 0, &first);
    wait_for(w, 0, &second);
    reply(w, 0, &first, SM_DNS_RCODE_SERVFAIL);
    sm_loop_turn(w->loop);
    assert_int_equal(answered(w), SM_DNS_RCODE_SERVFAIL);
}

static void where_all_are_silent_the_guest_is_told(void **state)
{
    struct world *w = *state;
    static const unsigned silent[] = {SILENT, SILENT};
    char asked[16];
    resolvers(w, 2, silent);
    int64_t began = now_ms;
    assert_int_equal(ask(w, 2, silent, asked), SM_DNS_RCODE_SERVFAIL);
    assert_string_equal(asked, "010");
    assert_true(now_ms - began >= SM_DNS_TRY_MS * SM_DNS_TRIES); /* all had their time */
    assert_true(now_ms - began <= SM_DNS_GIVE_UP_MS + STEP_MS);
}

/* Does what comes to a listener of ours: a question is answered, or with a byte and an end. */
static void serve_stream(struct world *w, unsigned i, int *conn, bool helps)
{
    uint8_t msg[512];
    if (*conn < 0)
        *conn = accept4(w->servers[i], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    ssize_t n = *conn < 0 ? -1 : recv(*conn, msg, sizeof(msg), 0);
    if (n <= 0)
        return;
    assert_int_equal(n, 2 + sizeof(query));
    assert_int_equal(msg[1], sizeof(query));
    msg[4] |= 0x80;
    assert_int_equal(send(*conn, msg, helps ? (size_t)n : 1, 0), helps ? n : 1);
    close(*conn);
    *conn = -1;
}

/* One that breaks off, one where nobody listens, one that helps: no time passes. */
static void over_tcp_the_next_one_is_asked_at_once(void **state)
{
    struct world *w = *state;
    uint16_t ports[SERVERS];
    int conns[SERVERS] = {-1, -1, -1}, code;
    for (unsigned i = 0; i < SERVERS; i++) {
        w->servers[i] = server(SOCK_STREAM, &ports[i]);
        if (i == 1) {
            close(w->servers[i]);
            w->servers[i] = -1;
        } else {
            assert_int_equal(fcntl(w->servers[i], F_SETFL, O_NONBLOCK), 0);
            assert_int_equal(listen(w->servers[i], 1), 0);
        }
    }
    write_conf(w, ports, SERVERS);
    struct sm_dns_client client = {.port = 4000, .stream = 1};
    int64_t began = now_ms;
    assert_true(sm_dns_proxy_ask(w->proxy, &client, query, sizeof(query)));
    while ((code = answered(w)) < 0) {
        serve_stream(w, 0, &conns[0], false);
        serve_stream(w, 2, &conns[2], true);
        sm_loop_turn(w->loop);
    }
    assert_int_equal(code, 0);
    assert_int_equal(now_ms, began);
}

static void count_question(void *arg)
{
    ++*(unsigned *)arg;
}

/* As where the file cannot be read, whatever it says. */
static void the_name_servers_can_be_told(void **state)
{
    struct world *w = *state;
    static const unsigned does[SERVERS] = {0};
    unsigned questions = 0;
    char asked[16], text[256];
    resolvers(w, 2, does);
    uint16_t port[2];
    for (unsigned i = 0; i < 2; i++) {
        struct sockaddr_in a;
        socklen_t len = sizeof(a);
        assert_int_equal(getsockname(w->servers[i], (struct sockaddr *)&a, &len), 0);
        port[i] = ntohs(a.sin_port);
    }
    sm_dns_proxy_have_told(w->proxy, count_question, &questions);
    for (unsigned i = 2; i-- > 0;) {
        snprintf(text, sizeof(text), "nameserver [127.0.0.1]:%u\n", port[i]);
        sm_dns_proxy_tell(w->proxy, text);
        assert_int_equal(ask(w, 2, does, asked), 0);
        assert_string_equal(asked, i ? "1" : "0");
        assert_int_equal(questions, 2 - i);
    }
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(the_next_one_is_asked_and_the_silent_one_comes_last_then),
        T(an_answer_that_comes_late_is_taken),
        T(the_only_one_that_cannot_help_is_believed_at_once),
        T(where_all_are_silent_the_guest_is_told),
        T(over_tcp_the_next_one_is_asked_at_once),
        T(the_name_servers_can_be_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
