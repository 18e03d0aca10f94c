/* A guest that asks its name server over TCP, by IPv4 and IPv6; the host's resolver is the test's.
 * All that comes to the guest is from the name server's address, with checksums that are right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "net/dns_tcp.h"
#include "user_net_guest.h"

#define ANSWER 9000 /* more than a datagram to the guest may have, in several segments */

#define WINDOW 2048 /* so that each segment fits a buffer of the guest's */

/* A connection of the guest's. */
struct conn {
    bool v6;
    uint16_t port;
    uint32_t seq, ack;
};

static const uint8_t question[] = {
    0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'x', 4, 't', 'e', 's', 't', 0, 0, 16, 0, 1};

static void say(struct fixture *f, struct conn *c, uint8_t flags, const void *data, size_t len)
{
    send_segment(f, &(struct segment){.v6 = c->v6,
                        .dst = (c->v6 ? &sm_subnet_v6 : &sm_subnet_v4)->dns,
                        .sport = c->port,
                        .dport = 53,
                        .seq = c->seq,
                        .ack = c->ack,
                        .flags = flags,
                        .window = WINDOW,
                        .data = data,
                        .len = len});
    c->seq += (uint32_t)len + (flags & (SM_TCP_SYN | SM_TCP_FIN) ? 1 : 0);
}

/* The next segment for this connection; returns its flags. */
static uint8_t hear(struct fixture *f, struct conn *c, uint8_t *frame, struct sm_frame *parsed)
{
    do {
        expect(f, SM_IP_TCP, frame, RX_SIZE, parsed);
        const struct sm_subnet *subnet = parsed->v6 ? &sm_subnet_v6 : &sm_subnet_v4;
        const uint8_t *l3 = frame + parsed->l3;
        size_t header = parsed->v6 ? SM_IPV6_HEADER : SM_IPV4_HEADER;
        assert_true(sm_ip_equal(&parsed->src, &subnet->dns) && parsed->sport == 53);
        assert_int_equal(
            sm_inet_finish(tcp_sum(l3, parsed->v6, parsed->end - parsed->l3 - header)), 0);
        if (!parsed->v6)
            assert_int_equal(sm_inet_finish(sm_inet_sum(l3, SM_IPV4_HEADER, 0)), 0);
    } while (parsed->dport != c->port || parsed->v6 != c->v6);
    uint32_t seq = sm_frame_tcp_number(frame, parsed, SM_TCP_SEQ_AT);
    c->ack = seq + (uint32_t)(parsed->end - parsed->payload) +
             (parsed->tcp_flags & (SM_TCP_SYN | SM_TCP_FIN) ? 1 : 0);
    return parsed->tcp_flags;
}

static struct conn connect_to_dns(struct fixture *f, bool v6, uint16_t port)
{
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    struct conn c = {.v6 = v6, .port = port, .seq = 1000};
    say(f, &c, SM_TCP_SYN, NULL, 0);
    assert_int_equal(hear(f, &c, frame, &parsed), SM_TCP_SYN | SM_TCP_ACK);
    say(f, &c, SM_TCP_ACK, NULL, 0);
    return c;
}

/* The question with its length, in two pieces. */
static void ask(struct fixture *f, struct conn *c)
{
    uint8_t msg[SM_DNS_LENGTH + sizeof(question)] = {0, sizeof(question)};
    memcpy(msg + SM_DNS_LENGTH, question, sizeof(question));
    say(f, c, SM_TCP_ACK, msg, 7);
    say(f, c, SM_TCP_ACK, msg + 7, sizeof(msg) - 7);
}

/* Bytes that come by the connection, each acknowledged. */
static void take(struct fixture *f, struct conn *c, uint8_t *to, size_t len)
{
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    for (size_t have = 0; have < len;) {
        assert_false(hear(f, c, frame, &parsed) & (SM_TCP_RST | SM_TCP_FIN));
        size_t n = parsed.end - parsed.payload;
        if (n == 0)
            continue;
        assert_true(n <= len - have);
        memcpy(to + have, frame + parsed.payload, n);
        have += n;
        say(f, c, SM_TCP_ACK, NULL, 0);
    }
}

static void wait_for_end(struct fixture *f, struct conn *c, uint8_t flag)
{
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    while (!(hear(f, c, frame, &parsed) & flag))
        ;
}

static void take_all(int fd, uint8_t *to, size_t len)
{
    for (size_t have = 0; have < len;) {
        ssize_t n = recv(fd, to + have, len - have, 0);
        assert_true(n > 0);
        have += (size_t)n;
    }
}

/* The host's resolver, over TCP, at the port of the one that takes datagrams. */
static int resolver(const struct fixture *f)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
        .sin_port = htons(f->resolver_port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

/* Takes a question and answers with a record of ANSWER bytes, in pieces. */
static void resolve(int listener)
{
    uint8_t msg[SM_DNS_LENGTH + ANSWER] = {0};
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    take_all(fd, msg, SM_DNS_LENGTH + sizeof(question));
    assert_int_equal(sm_load_be16(msg), sizeof(question));
    assert_memory_equal(msg + SM_DNS_LENGTH + 2, question + 2, sizeof(question) - 2);
    uint8_t *record = msg + SM_DNS_LENGTH + sizeof(question);
    sm_store_be16(msg, ANSWER);
    msg[SM_DNS_LENGTH + 2] |= 0x80;
    msg[SM_DNS_LENGTH + 7] = 1;
    memcpy(record, "\xc0\x0c\0\x10\0\1\0\0\0\x3c", 10);
    sm_store_be16(record + 10, ANSWER - sizeof(question) - 12);
    memset(record + 12, 'y', ANSWER - sizeof(question) - 12);
    assert_int_equal(send(fd, msg, 1, 0), 1);
    assert_int_equal(send(fd, msg + 1, sizeof(msg) - 1, 0), sizeof(msg) - 1);
    close(fd);
}

static void an_answer_of_any_length_comes_over_tcp(void **state)
{
    (void)state;
    struct fixture *f = start("layer public\n", 0);
    int listener = resolver(f);
    for (int v6 = 0; v6 < 2; v6++) {
        uint8_t answer[SM_DNS_LENGTH + ANSWER];
        struct conn c = connect_to_dns(f, v6, 5000);
        for (int twice = 0; twice < 2; twice++) {
            ask(f, &c);
            resolve(listener);
            take(f, &c, answer, sizeof(answer));
            assert_int_equal(sm_load_be16(answer), ANSWER);
            assert_memory_equal(answer + SM_DNS_LENGTH, question, 2);
            assert_int_equal(answer[sizeof(answer) - 1], 'y');
        }
        say(f, &c, SM_TCP_ACK | SM_TCP_FIN, NULL, 0);
        wait_for_end(f, &c, SM_TCP_FIN);
        say(f, &c, SM_TCP_ACK, NULL, 0);
        wait_sockets(f, 0);
    }
    close(listener);
    stop(f);
}

/* By the policy, by a resolver that takes no connection; the guest is told at once. */
static void what_cannot_be_answered_is_said_over_tcp(void **state)
{
    (void)state;
    static const struct {
        const char *policy;
        unsigned code;
    } cases[] = {
        {"layer none\nallow other.test\n", SM_DNS_RCODE_NXDOMAIN},
        {"", SM_DNS_RCODE_SERVFAIL},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        uint8_t answer[SM_DNS_LENGTH + sizeof(question)];
        struct fixture *f = start(cases[i].policy, 0);
        struct conn c = connect_to_dns(f, false, 5000);
        ask(f, &c);
        take(f, &c, answer, sizeof(answer));
        assert_memory_equal(answer + SM_DNS_LENGTH, question, 2);
        assert_int_equal(answer[SM_DNS_LENGTH + 3] & 15, cases[i].code);
        if (cases[i].code == SM_DNS_RCODE_NXDOMAIN)
            assert_int_equal(f->last_protocol, SM_IP_TCP); /* as it is told to the user */
        stop(f);
    }
}

static void what_is_no_question_ends_the_connection(void **state)
{
    (void)state;
    static const char words[][15] = {"\0\x01x", "GET / HTTP/1.0", "\0\x0c"};
    struct fixture *f = start("", 0);
    for (uint16_t i = 0; i < SM_ARRAY_LEN(words); i++) {
        struct conn c = connect_to_dns(f, false, (uint16_t)(5000 + i));
        say(f, &c, SM_TCP_ACK, words[i], 14);
        wait_for_end(f, &c, SM_TCP_RST);
    }
    stop(f);
}

/* So many and no more; a new one takes the place of who asks nothing, and who asks stays. */
static void connections_are_bounded(void **state)
{
    (void)state;
    uint8_t frame[RX_SIZE], answer[SM_DNS_LENGTH + ANSWER];
    struct sm_frame parsed;
    struct fixture *f = start("", 0);
    int listener = resolver(f);
    struct conn first = connect_to_dns(f, false, 5000);
    ask(f, &first);
    int conn = accept4(listener, NULL, NULL, SOCK_CLOEXEC); /* so it is being asked */
    assert_true(conn >= 0);
    struct conn idle = connect_to_dns(f, false, 5001);
    for (uint16_t i = 2; i < SM_DNS_TCP_MAX; i++)
        (void)connect_to_dns(f, false, (uint16_t)(5000 + i));
    wait_sockets(f, SM_DNS_TCP_MAX);
    struct conn late = {.port = 5000 + SM_DNS_TCP_MAX, .seq = 1000};
    say(f, &late, SM_TCP_SYN, NULL, 0);
    assert_true(hear(f, &idle, frame, &parsed) & SM_TCP_RST);
    assert_int_equal(hear(f, &late, frame, &parsed), SM_TCP_SYN | SM_TCP_ACK);
    wait_sockets(f, SM_DNS_TCP_MAX);
    close(conn);
    resolve(listener); /* asked again */
    take(f, &first, answer, sizeof(answer));
    close(listener);
    stop(f);
}

/* Of this process: those that wait for libslirp. */
static unsigned count_listeners(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++) {
        int listens = 0;
        socklen_t len = sizeof(listens);
        n += getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens;
    }
    return n;
}

/* Data in it, which nobody was told may be sent. Who listened on would be reached by the next SYN,
 * or worse, where that port is somebody else's by then. */
static void a_syn_that_is_dropped_leaves_no_listener(void **state)
{
    (void)state;
    struct fixture *f = start("", 0);
    for (uint16_t i = 0; i < SM_DNS_TCP_MAX; i++) {
        struct conn c = {.v6 = i % 2, .port = (uint16_t)(5000 + i), .seq = 1000};
        say(f, &c, SM_TCP_SYN, "x", 1);
    }
    struct conn c = connect_to_dns(f, false, 6000); /* those before have been looked at */
    ask(f, &c);
    int64_t deadline = sm_deadline(PATIENCE_MS);
    while (count_listeners() > 0) {
        if (sm_deadline_left(deadline) == 0)
            fail_msg("%u listeners are left", count_listeners());
        usleep(1000);
    }
    stop(f);
}

/* Also while others come all the time. */
static void who_asks_nothing_is_hung_up_on(void **state)
{
    (void)state;
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    struct fixture *f = start("", 0);
    struct conn idle = connect_to_dns(f, false, 5000);
    for (uint16_t i = 1; i < SM_DNS_TCP_MAX; i++) {
        struct conn other = {.port = (uint16_t)(5000 + i), .seq = 1000};
        say(f, &other, SM_TCP_SYN, NULL, 0);
        int64_t next = sm_deadline(SM_DNS_STREAM_IDLE_MS * 9 / 100);
        for (size_t len; (len = receive(f, frame, RX_SIZE, sm_deadline_left(next))) > 0;) {
            sm_frame_parse(frame, len, &parsed);
            if (parsed.dport == idle.port && parsed.tcp_flags & SM_TCP_FIN) {
                stop(f);
                return;
            }
        }
    }
    fail_msg("it stays connected");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_of_any_length_comes_over_tcp),
        cmocka_unit_test(what_cannot_be_answered_is_said_over_tcp),
        cmocka_unit_test(what_is_no_question_ends_the_connection),
        cmocka_unit_test(connections_are_bounded),
        cmocka_unit_test(a_syn_that_is_dropped_leaves_no_listener),
        cmocka_unit_test(who_asks_nothing_is_hung_up_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
