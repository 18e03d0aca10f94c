/*
 * The user-mode network from the guest's side: frames in at virtio-net, frames out, real sockets on
 * the host's loopback behind it (opened by `host-loopback`), and a resolver of the test's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "user_net_guest.h"

static void test_udp_to_host(void **state)
{
    (void)state;
    uint16_t port;
    uint16_t closed;
    int host = loopback_socket(SOCK_DGRAM, &port), other = loopback_socket(SOCK_DGRAM, &closed);
    char text[64];
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    struct pollfd p = {.fd = other, .events = POLLIN};
    snprintf(text, sizeof(text), "layer all\nallow host-loopback:%u\n", port);
    struct fixture *f = start(text, 0);
    send_udp(f, false, &sm_subnet_v4.gateway, 4000, port, "ping", 4);
    p.fd = host;
    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    uint8_t buf[64];
    assert_int_equal(recvfrom(host, buf, sizeof(buf), 0, (struct sockaddr *)&from, &from_len), 4);
    assert_int_equal(sendto(host, "pong!", 5, 0, (struct sockaddr *)&from, from_len), 5);
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    expect(f, SM_IP_UDP, frame, sizeof(frame), &parsed);
    assert_true(sm_ip_equal(&parsed.src, &sm_subnet_v4.gateway));
    assert_int_equal(parsed.sport, port);
    assert_int_equal(parsed.dport, 4000);
    assert_memory_equal(frame + parsed.payload, "pong!", 5);

    /* The other port is not open: the guest is told, nothing arrives. */
    send_udp(f, false, &sm_subnet_v4.gateway, 4000, closed, "ping", 4);
    expect(f, SM_IP_ICMP, frame, sizeof(frame), &parsed);
    assert_int_equal(parsed.icmp_type, 3);
    p.fd = other;
    assert_int_equal(poll(&p, 1, 100), 0);
    assert_int_equal(atomic_load(&f->reports), 1);
    assert_int_equal(f->last, SM_VERDICT_LOOPBACK);
    stop(f);
    close(host);
    close(other);
}

/* Of one byte, and of more than a packet of the usual size holds. */
static void datagrams_of_any_size_pass(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 1473, 1999, 0};
    uint16_t port;
    uint8_t data[2000], back[2000], frame[RX_SIZE];
    struct sm_frame parsed;
    char text[64];
    int host = loopback_socket(SOCK_DGRAM, &port);
    snprintf(text, sizeof(text), "layer all\nallow host-loopback:%u\n", port);
    struct fixture *f = start(text, 0);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < SM_ARRAY_LEN(sizes); i++) {
        struct sockaddr_in from;
        socklen_t from_len = sizeof(from);
        send_udp(f, false, &sm_subnet_v4.gateway, 4000, port, data, sizes[i]);
        struct pollfd p = {.fd = host, .events = POLLIN};
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        assert_int_equal(
            recvfrom(host, back, sizeof(back), 0, (struct sockaddr *)&from, &from_len), sizes[i]);
        assert_int_equal(
            sendto(host, back, sizes[i], 0, (struct sockaddr *)&from, from_len), sizes[i]);
        expect(f, SM_IP_UDP, frame, sizeof(frame), &parsed);
        assert_int_equal(parsed.end - parsed.payload, sizes[i]);
        assert_memory_equal(frame + parsed.payload, data, sizes[i]);
    }
    stop(f);
    close(host);
}

/* A driver that resets the card, as one that is bound anew does, finds the network as it was. */
static void test_card_is_reset(void **state)
{
    (void)state;
    uint16_t port;
    int host = loopback_socket(SOCK_DGRAM, &port);
    char text[64];
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    snprintf(text, sizeof(text), "layer all\nallow host-loopback:%u\n", port);
    struct fixture *f = start(text, 0);
    uint8_t frame[RX_SIZE];
    uint8_t buf[64];
    struct sm_frame parsed;
    for (int i = 0; i < 3; i++) {
        send_udp(f, false, &sm_subnet_v4.gateway, 4000, port, "ping", 4);
        assert_int_equal(
            recvfrom(host, buf, sizeof(buf), 0, (struct sockaddr *)&from, &from_len), 4);
        assert_int_equal(sendto(host, "pong!", 5, 0, (struct sockaddr *)&from, from_len), 5);
        expect(f, SM_IP_UDP, frame, sizeof(frame), &parsed);
        assert_memory_equal(frame + parsed.payload, "pong!", 5);
        plug(f);
    }
    stop(f);
    close(host);
}

static void test_tcp_to_host(void **state)
{
    (void)state;
    uint16_t port;
    int host = loopback_socket(SOCK_STREAM, &port);
    uint32_t seq = 1000;
    assert_int_equal(listen(host, 4), 0);
    char text[64];
    snprintf(text, sizeof(text), "layer public\nallow host-loopback:%u\n", port);
    struct fixture *f = start(text, 0);
    send_tcp(f, &sm_subnet_v4.gateway, 5000, port, seq++, 0, SM_TCP_SYN, "");
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    expect(f, SM_IP_TCP, frame, sizeof(frame), &parsed);
    assert_int_equal(parsed.tcp_flags & (SM_TCP_SYN | 0x10), SM_TCP_SYN | 0x10);
    uint32_t ack = sm_load_be32(frame + 34 + 4) + 1;
    send_tcp(f, &sm_subnet_v4.gateway, 5000, port, seq, ack, 0x18, "hello");
    seq += 5;
    int conn = accept4(host, NULL, NULL, SOCK_CLOEXEC);
    assert_true(conn >= 0);
    char buf[16];
    assert_int_equal(recv(conn, buf, sizeof(buf), 0), 5);
    assert_memory_equal(buf, "hello", 5);
    assert_int_equal(send(conn, "world", 5, 0), 5);
    do {
        expect(f, SM_IP_TCP, frame, sizeof(frame), &parsed);
    } while (parsed.payload == parsed.end);
    assert_memory_equal(frame + parsed.payload, "world", 5);
    ack += 5;
    wait_sockets(f, 1);
    send_tcp(f, &sm_subnet_v4.gateway, 5000, port, seq, ack, SM_TCP_RST, "");
    wait_sockets(f, 0);
    assert_true(recv(conn, buf, sizeof(buf), 0) <= 0);
    close(conn);
    close(host);
    stop(f);
}

/* A listener on the host's loopback: by none of its names may the guest get there. */
static void test_loopback_is_closed(void **state)
{
    (void)state;
    uint16_t port;
    int host = loopback_socket(SOCK_STREAM, &port);
    static const char *const names[] = {"127.0.0.1", "0.0.0.0", "10.0.2.2"};
    struct pollfd p = {.fd = host, .events = POLLIN};
    assert_int_equal(listen(host, 4), 0);
    struct fixture *f = start("", 0);
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++) {
        struct sm_ip ip;
        assert_true(sm_ip_parse(names[i], &ip));
        send_tcp(f, &ip, 5000, port, 1, 0, SM_TCP_SYN, "");
        expect(f, SM_IP_TCP, frame, sizeof(frame), &parsed);
        assert_int_equal(parsed.tcp_flags, SM_TCP_RST | SM_TCP_ACK);
        assert_int_equal(sm_load_be32(frame + 34 + 8), 2);
    }
    assert_int_equal(poll(&p, 1, 200), 0);
    close(host);
    stop(f);
}

/* Gateway and name server have an address before libslirp is there. */
static void test_arp(void **state)
{
    (void)state;
    uint8_t request[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct fixture *f = start("layer none\n", 0);
    memcpy(request + 6, sm_user_net_mac, 6);
    memcpy(request + 12, "\x08\x06\0\1\x08\0\6\4\0\1", 10);
    memcpy(request + 22, sm_user_net_mac, 6);
    memcpy(request + 28, "\x0a\0\2\x0f\0\0\0\0\0\0\x0a\0\2\2", 14);
    uint8_t reply[64];
    for (int i = 2; i <= 3; i++) {
        request[41] = (uint8_t)i;
        send_frame(f, request, sizeof(request));
        assert_int_equal(receive(f, reply, sizeof(reply), PATIENCE_MS), 42);
        assert_memory_equal(reply, sm_user_net_mac, 6);
        assert_memory_equal(reply + 6, gateway_mac, 6);
        assert_memory_equal(reply + 12, "\x08\x06\0\1\x08\0\6\4\0\2", 10);
        assert_memory_equal(reply + 22, gateway_mac, 6);
        assert_memory_equal(reply + 28, request + 38, 4);
        assert_memory_equal(reply + 32, request + 22, 10);
    }
    request[41] = 9; /* nobody */
    send_frame(f, request, sizeof(request));
    assert_int_equal(receive(f, reply, sizeof(reply), 100), 0);
    stop(f);
}

static bool no_pings; /* the host lets us open no sockets for them */

int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);

int __wrap_socket(int domain, int type, int protocol)
{
    if (!no_pings || protocol != IPPROTO_ICMP)
        return __real_socket(domain, type, protocol);
    errno = EACCES;
    return -1;
}

static void send_echo(struct fixture *f, const struct sm_ip *dst)
{
    bool v6 = !sm_ip_is_v4(dst);
    uint8_t frame[SM_ETH_HEADER + SM_IPV6_HEADER + 16] = {0}, *ip = frame + SM_ETH_HEADER;
    uint8_t *icmp = ip + (v6 ? SM_IPV6_HEADER : SM_IPV4_HEADER);
    memcpy(frame, gateway_mac, 6);
    memcpy(frame + 6, sm_user_net_mac, 6);
    memcpy(frame + 12, v6 ? "\x86\xdd" : "\x08", 2);
    memcpy(icmp, v6 ? "\x80\0\0\0\0\1\0\1abcdefgh" : "\x08\0\0\0\0\1\0\1abcdefgh", 16);
    uint32_t start = 0;
    if (v6) {
        memcpy(ip, "\x60\0\0\0\0\x10\x3a\x40", 8);
        memcpy(ip + 8, sm_subnet_v6.guest.b, 16);
        memcpy(ip + 24, dst->b, 16);
        start = sm_inet_sum("\0\0\0\x10\0\0\0\x3a", 8, sm_inet_sum(ip + 8, 32, 0));
    } else {
        memcpy(ip, "\x45\0\0\x24\0\0\0\0\x40\1", 10);
        memcpy(ip + 12, sm_subnet_v4.guest.b + 12, 4);
        memcpy(ip + 16, dst->b + 12, 4);
        uint16_t sum = sm_inet_finish(sm_inet_sum(ip, SM_IPV4_HEADER, 0));
        memcpy(ip + 10, &sum, 2);
    }
    uint16_t sum = sm_inet_finish(sm_inet_sum(icmp, 16, start));
    memcpy(icmp + 2, &sum, 2);
    send_frame(f, frame, (size_t)(icmp - frame) + 16);
}

/* By the network itself, whatever the host allows. */
static void test_ping_gateway(void **state)
{
    (void)state;
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    struct fixture *f = start("layer none\n", 0);
    no_pings = true;
    for (int v6 = 0; v6 < 2; v6++) {
        const struct sm_subnet *subnet = v6 ? &sm_subnet_v6 : &sm_subnet_v4;
        send_echo(f, &subnet->gateway);
        expect(f, v6 ? SM_IP_ICMPV6 : SM_IP_ICMP, frame, sizeof(frame), &parsed);
        assert_int_equal(parsed.icmp_type, v6 ? 129 : 0);
        assert_memory_equal(frame + parsed.payload, "abcdefgh", 8);
    }
    no_pings = false;
    stop(f);
}

/* Nothing goes out for it, and the guest need not wait. */
static void a_ping_that_cannot_be_made_is_refused_at_once(void **state)
{
    (void)state;
    static const char *const outside[] = {"198.51.100.9", "2001:db8::9"};
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    struct fixture *f = start("", 0);
    no_pings = true;
    for (int v6 = 0; v6 < 2; v6++) {
        struct sm_ip ip;
        assert_true(sm_ip_parse(outside[v6], &ip));
        send_echo(f, &ip);
        expect(f, v6 ? SM_IP_ICMPV6 : SM_IP_ICMP, frame, sizeof(frame), &parsed);
        assert_int_equal(parsed.icmp_type, v6 ? 1 : 3);           /* destination unreachable: */
        assert_int_equal(frame[parsed.payload - 7], v6 ? 1 : 13); /* prohibited */
        assert_true(sm_ip_equal(&parsed.src, &ip));
    }
    wait_sockets(f, 0);
    no_pings = false;
    stop(f);
}

/* ---- DNS ------------------------------------------------------------------------------------ */

static size_t make_query(uint8_t *msg, const char *label)
{
    size_t n = strlen(label);
    memcpy(msg, "\xab\xcd\x01\0\0\1\0\0\0\0\0\0", 12);
    msg[12] = (uint8_t)n;
    memcpy(msg + 13, label, n);
    memcpy(msg + 13 + n, "\7example\3com\0\0\1\0\1", 17);
    return 13 + n + 17;
}

/* The resolver of the host answers one question with this address. */
static void resolve(struct fixture *f, const char *label, const uint8_t addr[4], uint32_t ttl)
{
    uint8_t msg[512];
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    struct pollfd p = {.fd = f->resolver, .events = POLLIN};
    ssize_t n;
    do { /* after two seconds it is asked again: those of an earlier question are not meant */
        if (poll(&p, 1, PATIENCE_MS) != 1)
            fail_msg("the resolver was not asked for %s", label);
        n = recvfrom(f->resolver, msg, sizeof(msg), 0, (struct sockaddr *)&from, &from_len);
        assert_true(n > 12);
    } while (msg[12] != strlen(label) || memcmp(msg + 13, label, strlen(label)) != 0);
    msg[2] |= 0x80;
    msg[7] = 1;
    memcpy(msg + n, "\xc0\x0c\0\1\0\1", 6);
    msg[n + 6] = msg[n + 7] = 0;
    msg[n + 8] = (uint8_t)(ttl >> 8);
    msg[n + 9] = (uint8_t)ttl;
    msg[n + 10] = 0;
    msg[n + 11] = 4;
    memcpy(msg + n + 12, addr, 4);
    assert_int_equal(
        sendto(f->resolver, msg, (size_t)n + 16, 0, (struct sockaddr *)&from, from_len), n + 16);
}

static bool resolver_was_asked(struct fixture *f)
{
    struct pollfd p = {.fd = f->resolver, .events = POLLIN};
    return poll(&p, 1, 150) == 1;
}

/* Returns the rcode of the answer that the guest got; the addresses start at frame + *at. */
static unsigned dns_answer(struct fixture *f, bool v6, uint8_t *frame, size_t room)
{
    struct sm_frame parsed;
    expect(f, SM_IP_UDP, frame, room, &parsed);
    assert_true(sm_ip_equal(&parsed.src, v6 ? &sm_subnet_v6.dns : &sm_subnet_v4.dns));
    assert_int_equal(parsed.sport, 53);
    assert_int_equal(parsed.dport, 6000);
    assert_memory_equal(frame + parsed.payload, "\xab\xcd", 2);
    return frame[parsed.payload + 3] & 15u;
}

static void ask(struct fixture *f, bool v6, const char *label)
{
    uint8_t msg[512];
    size_t n = make_query(msg, label);
    send_udp(f, v6, v6 ? &sm_subnet_v6.dns : &sm_subnet_v4.dns, 6000, 53, msg, n);
}

static void test_dns(void **state)
{
    (void)state;
    struct fixture *f = start("", 0);
    uint8_t frame[RX_SIZE];
    for (int v6 = 0; v6 < 2; v6++) {
        ask(f, v6, "www");
        resolve(f, "www", (uint8_t[]){10, 1, 2, 3}, 60); /* private is fine without a policy */
        assert_int_equal(dns_answer(f, v6, frame, sizeof(frame)), 0);
    }
    stop(f);
}

static void test_dns_policy(void **state)
{
    (void)state;
    struct fixture *f = start("layer none\nallow *.example.com:9\ndeny bad.example.com\n", 0);
    ask(f, false, "bad");
    uint8_t frame[RX_SIZE];
    assert_int_equal(dns_answer(f, false, frame, sizeof(frame)), 3);
    assert_false(resolver_was_asked(f));
    assert_int_equal(f->last, SM_VERDICT_NAME);
    assert_string_equal(f->last_name, "bad.example.com");

    ask(f, false, "rebind");
    resolve(f, "rebind", (uint8_t[]){169, 254, 169, 254}, 60);
    assert_int_equal(dns_answer(f, false, frame, sizeof(frame)), 3);
    assert_int_equal(f->last, SM_VERDICT_REBIND);
    ask(f, false, "rebind2");
    resolve(f, "rebind2", (uint8_t[]){127, 0, 0, 1}, 60);
    assert_int_equal(dns_answer(f, false, frame, sizeof(frame)), 3);

    struct sm_ip target;
    /* Not known yet: refused. After the answer the same address is let through, on the one port. */
    assert_true(sm_ip_parse("1.1.1.1", &target));
    assert_null(sm_names_find(&sm_user_net_egress(f->backend)->names, &target, 0));
    send_udp(f, false, &target, 7000, 9, "x", 1);
    struct sm_frame parsed;
    expect(f, SM_IP_ICMP, frame, sizeof(frame), &parsed);
    ask(f, false, "ok");
    resolve(f, "ok", (uint8_t[]){1, 1, 1, 1}, 60);
    assert_int_equal(dns_answer(f, false, frame, sizeof(frame)), 0);
    assert_non_null(
        sm_names_find(&sm_user_net_egress(f->backend)->names, &target, (uint64_t)sm_now_ms()));
    send_udp(f, false, &target, 7000, 10, "x", 1);
    expect(f, SM_IP_ICMP, frame, sizeof(frame), &parsed);
    stop(f);
}

static void test_dns_silence_is_bounded(void **state)
{
    (void)state;
    struct fixture *f = start("", 0);
    close(f->resolver); /* refused at once: SERVFAIL after the tries, not after their time */
    f->resolver = -1;
    ask(f, false, "www");
    uint8_t frame[RX_SIZE];
    assert_int_equal(dns_answer(f, false, frame, sizeof(frame)), 2);
    stop(f);
}

/* ---- floods --------------------------------------------------------------------------------- */

static void test_socket_limit(void **state)
{
    (void)state;
    uint16_t port;
    int host = loopback_socket(SOCK_DGRAM, &port);
    char text[64];
    snprintf(text, sizeof(text), "layer all\nallow host-loopback:%u\n", port);
    struct fixture *f = start(text, 8);
    for (unsigned i = 0; i < 200; i++)
        send_udp(f, false, &sm_subnet_v4.gateway, (uint16_t)(10000 + i), port, "x", 1);
    assert_int_equal(atomic_load(&sm_user_net_counters(f->backend)->sockets), 6);
    assert_int_equal(atomic_load(&sm_user_net_counters(f->backend)->socket_limit), 194);
    send_udp(f, false, &sm_subnet_v4.gateway, 10001, port, "again", 5); /* has one */
    assert_int_equal(atomic_load(&sm_user_net_counters(f->backend)->socket_limit), 194);
    close(host);
    stop(f);
}

static void test_backlog_is_bounded(void **state)
{
    (void)state;
    uint16_t port;
    int host = loopback_socket(SOCK_DGRAM, &port);
    uint8_t buf[1400] = {0};
    char text[64];
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    int64_t deadline = sm_deadline(PATIENCE_MS);
    snprintf(text, sizeof(text), "layer all\nallow host-loopback:%u\n", port);
    struct fixture *f = start(text, 0);
    send_udp(f, false, &sm_subnet_v4.gateway, 4000, port, "x", 1);
    recvfrom(host, buf, sizeof(buf), 0, (struct sockaddr *)&from, &from_len);
    sendto(host, "first", 5, 0, (struct sockaddr *)&from, from_len);
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    expect(f, SM_IP_UDP, frame, sizeof(frame), &parsed);
    /* The guest takes nothing more, the host goes on. */
    while (atomic_load(&sm_user_net_counters(f->backend)->backlog_limit) == 0) {
        if (sm_deadline_left(deadline) == 0)
            fail_msg("no limit was reached");
        for (int i = 0; i < 50; i++)
            sendto(host, buf, sizeof(buf), 0, (struct sockaddr *)&from, from_len);
    }
    for (int i = 0; i < 200; i++) /* what waited comes, in order and whole */
        assert_int_equal(receive(f, frame, sizeof(frame), PATIENCE_MS), 14 + 28 + 1400);
    close(host);
    stop(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_udp_to_host),
        cmocka_unit_test(datagrams_of_any_size_pass),
        cmocka_unit_test(test_card_is_reset),
        cmocka_unit_test(test_tcp_to_host),
        cmocka_unit_test(test_loopback_is_closed),
        cmocka_unit_test(test_arp),
        cmocka_unit_test(test_ping_gateway),
        cmocka_unit_test(a_ping_that_cannot_be_made_is_refused_at_once),
        cmocka_unit_test(test_dns),
        cmocka_unit_test(test_dns_policy),
        cmocka_unit_test(test_dns_silence_is_bounded),
        cmocka_unit_test(test_socket_limit),
        cmocka_unit_test(test_backlog_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
