/* The guest's name server before resolvers that are silent, gone, or of no help: who is asked when,
 * what the guest gets, who is asked first then. The resolvers are this test's, on the loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/dns_proxy.h"
#include "patience.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define SERVERS 3
#define SILENT  16 /* instead of a code of an answer */
#define GONE    17 /* nobody listens there */

struct world {
    struct sm_loop *loop;
    struct sm_egress egress;
    struct sm_dns_proxy *proxy;
    char conf[32];
    int servers[SERVERS]; /* -1: nobody */
    int answers[2];       /* the answers to the guest come through this pair */
};

static const uint8_t query[] = {
    0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'x', 4, 't', 'e', 's', 't', 0, 0, 1, 0, 1};

static void on_answer(void *arg, const struct sm_dns_client *client, const uint8_t *msg, size_t len)
{
    struct world *w = arg;
    assert_int_equal(client->port, 4000);
    assert_int_equal(send(w->answers[1], msg, len, 0), len);
}

static int server(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
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
        w->servers[i] = server(&ports[i]);
        if (does[i] == GONE) {
            close(w->servers[i]);
            w->servers[i] = -1;
        }
    }
    unlink(w->conf); /* a new inode: it is read again */
    write_conf(w, ports, n);
}

/* Answers what has come; appends the digit of each that was asked. */
static void serve(struct world *w, unsigned n, const unsigned *does, char *asked)
{
    uint8_t msg[512];
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    for (unsigned i = 0; i < n; i++) {
        ssize_t got = w->servers[i] < 0 ? -1
                                        : recvfrom(w->servers[i], msg, sizeof(msg), MSG_DONTWAIT,
                                              (struct sockaddr *)&from, &len);
        if (got < 0)
            continue;
        snprintf(asked + strlen(asked), 16 - strlen(asked), "%u", i);
        if (does[i] == SILENT)
            continue;
        msg[2] |= 0x80;
        msg[3] = (uint8_t)does[i];
        sendto(w->servers[i], msg, (size_t)got, 0, (struct sockaddr *)&from, len);
    }
}

/* The guest's question: what it is answered, and in *asked who was asked for that. */
static unsigned ask(struct world *w, unsigned n, const unsigned *does, char asked[16])
{
    uint8_t msg[512];
    asked[0] = 0;
    sm_dns_proxy_ask(w->proxy, &(struct sm_dns_client){.port = 4000}, query, sizeof(query));
    for (int64_t end = sm_deadline(PATIENCE_MS); sm_deadline_left(end) > 0; usleep(1000)) {
        sm_loop_turn(w->loop);
        serve(w, n, does, asked);
        if (recv(w->answers[0], msg, sizeof(msg), MSG_DONTWAIT) < 0)
            continue;
        assert_memory_equal(msg, query, 2); /* the guest's number */
        return msg[3] & 15;
    }
    fail_msg("no answer");
    return 0;
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

/* One that is slow is not lost: its answer counts while others are asked. */
static void an_answer_that_comes_late_is_taken(void **state)
{
    struct world *w = *state;
    static const unsigned silent[] = {SILENT, SILENT}, late[] = {0, SILENT};
    char asked[16] = "", again[16] = "";
    uint8_t msg[512];
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    resolvers(w, 2, silent);
    sm_dns_proxy_ask(w->proxy, &(struct sm_dns_client){.port = 4000}, query, sizeof(query));
    ssize_t n = recvfrom(w->servers[0], msg, sizeof(msg), 0, (struct sockaddr *)&from, &len);
    assert_int_equal(n, sizeof(query));
    while (strlen(asked) == 0) {
        sm_loop_turn(w->loop);
        serve(w, 2, silent, asked);
        usleep(1000);
    }
    assert_string_equal(asked, "1");
    msg[2] |= 0x80;
    assert_int_equal(sendto(w->servers[0], msg, (size_t)n, 0, (struct sockaddr *)&from, len), n);
    while (recv(w->answers[0], msg, sizeof(msg), MSG_DONTWAIT) < 0)
        sm_loop_turn(w->loop);
    assert_int_equal(msg[3] & 15, 0);
    assert_int_equal(ask(w, 2, late, again), 0);
    assert_string_equal(again, "0"); /* it did answer */
}

static void where_all_are_silent_the_guest_is_told(void **state)
{
    struct world *w = *state;
    static const unsigned silent[] = {SILENT, SILENT};
    char asked[16];
    resolvers(w, 2, silent);
    int64_t end = sm_deadline(SM_DNS_TRY_MS * SM_DNS_TRIES);
    assert_int_equal(ask(w, 2, silent, asked), SM_DNS_RCODE_SERVFAIL);
    assert_string_equal(asked, "010");
    assert_int_equal(sm_deadline_left(end), 0); /* all had their time */
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(the_next_one_is_asked_and_the_silent_one_comes_last_then),
        T(an_answer_that_comes_late_is_taken),
        T(where_all_are_silent_the_guest_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
