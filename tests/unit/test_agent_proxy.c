/* The agent's port proxy: its streams are unix sockets here, its services on this machine's
 * loopback. */
#include "agent_util.h"
#include "patience.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/bytes.h"

static int service(int type, bool v6, uint16_t *port)
{
    int fd = socket(v6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    if (v6)
        assert_int_equal(bind(fd, (struct sockaddr *)&a6, sizeof(a6)), 0);
    else
        assert_int_equal(bind(fd, (struct sockaddr *)&a4, sizeof(a4)), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 64), 0);
    socklen_t len = sizeof(a6);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a6, &len), 0);
    *port = ntohs(a6.sin6_port); /* at the same place in both */
    return fd;
}

static int host(struct agent_test *t, uint16_t port, uint16_t protocol)
{
    int fd = proxy_open(t);
    uint8_t first[SM_WIRE_PROXY_FIRST];
    sm_store_le16(first, port);
    sm_store_le16(first + 2, protocol);
    assert_int_equal(send(fd, first, sizeof(first), 0), sizeof(first));
    return fd;
}

static void expect_bytes(int fd, const char *want)
{
    char buf[256];
    size_t n = strlen(want);
    assert_int_equal(recv(fd, buf, n, MSG_WAITALL), n);
    assert_memory_equal(buf, want, n);
}

static void expect_end(int fd)
{
    char c;
    assert_true(recv(fd, &c, 1, 0) <= 0);
}

static void test_tcp_on(struct agent_test *t, bool v6)
{
    uint16_t port;
    int listener = service(SOCK_STREAM, v6, &port);
    int fd = host(t, port, SM_WIRE_PROXY_TCP);
    int guest = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(guest >= 0);
    assert_int_equal(send(fd, "question", 8, 0), 8);
    expect_bytes(guest, "question");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    expect_end(guest);
    assert_int_equal(send(guest, "answer", 6, 0), 6); /* the other direction lives on */
    expect_bytes(fd, "answer");
    close(guest);
    expect_end(fd);
    close(fd);
    close(listener);
}

static void test_says_ok(void **state)
{
    for (int v6 = 0; v6 < 2; v6++) {
        uint16_t port;
        int listener = service(SOCK_STREAM, v6, &port);
        int fd = host(*state, port, SM_WIRE_PROXY_TCP | SM_WIRE_PROXY_SAY_OK);
        int guest = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_int_equal(send(guest, "hello", 5, 0), 5);
        char want[32];
        snprintf(want, sizeof(want), "OK %u\nhello", port);
        expect_bytes(fd, want);
        close(guest);
        expect_end(fd);
        close(fd);
        close(listener);
        fd = host(*state, port, SM_WIRE_PROXY_TCP | SM_WIRE_PROXY_SAY_OK); /* nobody: no OK */
        expect_end(fd);
        close(fd);
    }
}

static void test_tcp(void **state)
{
    test_tcp_on(*state, false);
}

static void test_tcp_v6(void **state)
{
    test_tcp_on(*state, true);
}

/* A socket at the card's address alone (system_card_address). */
static int at_card(int type, uint16_t *port)
{
    struct sockaddr_in card = {
        .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(0x7f070707)};
    socklen_t len = sizeof(card);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&card, sizeof(card)), 0);
    assert_true(type != SOCK_STREAM || listen(fd, 4) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&card, &len), 0);
    *port = ntohs(card.sin_port);
    return fd;
}

static void a_service_at_the_cards_address_is_reached_by_the_owner(void **state)
{
    uint16_t port = 0;
    int listener = at_card(SOCK_STREAM, &port);
    int fd = host(*state, port, SM_WIRE_PROXY_TCP);
    int guest = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(guest >= 0);
    assert_int_equal(send(guest, "hello", 5, 0), 5);
    expect_bytes(fd, "hello");
    close(guest);
    expect_end(fd);
    close(fd);
    close(listener);
}

/* Sends a datagram and returns the one that a service has got. */
static void datagram(int fd, int service, const char *text)
{
    uint8_t frame[32];
    char got[32] = "";
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    size_t n = strlen(text);
    sm_store_le16(frame, (uint16_t)n);
    memcpy(frame + 2, text, n);
    assert_int_equal(send(fd, frame, n + 2, 0), n + 2);
    if (service < 0)
        return;
    do /* others may be on their way */
        assert_true(recvfrom(service, got, sizeof(got), 0, (struct sockaddr *)&from, &len) > 0);
    while (memcmp(got, text, n) != 0);
    assert_int_equal(sendto(service, "yes", 3, 0, (struct sockaddr *)&from, len), 3);
    expect_bytes(fd, "\3");
    assert_int_equal(recv(fd, got, 1, 0), 1);
    expect_bytes(fd, "yes");
}

/* Also the first one, and after the service has gone and another has come at another address. */
static void datagrams_reach_who_is_bound_to_the_card_or_to_the_loopback(void **state)
{
    uint16_t port = 0;
    int service = at_card(SOCK_DGRAM, &port);
    int fd = host(*state, port, SM_WIRE_PROXY_UDP);
    datagram(fd, service, "first");
    datagram(fd, service, "second");
    close(service);
    datagram(fd, -1, "to nobody");
    datagram(fd, -1, "to nobody");
    struct sockaddr_in loopback = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    service = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(service, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    assert_int_equal(bind(service, (struct sockaddr *)&loopback, sizeof(loopback)), 0);
    struct pollfd there = {.fd = service, .events = POLLIN};
    do /* what was lost meanwhile is lost; few at a time, or they fill the service's buffer */
        datagram(fd, -1, "third");
    while (poll(&there, 1, 50) == 0);
    datagram(fd, service, "fourth");
    close(service);
    service = at_card(SOCK_DGRAM, &port);
    /* three at once: the refusal of the first, which is lost, is told of the second */
    static const uint8_t three[] = "\1\0a\1\0b\1\0c";
    assert_int_equal(send(fd, three, sizeof(three) - 1, 0), sizeof(three) - 1);
    char got;
    assert_int_equal(recv(service, &got, 1, 0), 1);
    assert_int_equal(got, 'b');
    close(service);
    close(fd);
}

/* Who is not the owner gets to what any address leads to, from the card's address, and not to the
 * loopback's. */
static void test_outside(void **state)
{
    uint16_t port;
    int loopback = service(SOCK_STREAM, false, &port);
    int fd = host(*state, port, SM_WIRE_PROXY_TCP | SM_WIRE_PROXY_OUTSIDE);
    expect_end(fd);
    close(fd);
    int loopback6 = service(SOCK_STREAM, true, &port);
    fd = host(*state, port, SM_WIRE_PROXY_TCP | SM_WIRE_PROXY_OUTSIDE);
    expect_end(fd);
    close(fd);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in any = {.sin_family = AF_INET}, from;
    socklen_t len = sizeof(any);
    assert_int_equal(bind(listener, (struct sockaddr *)&any, sizeof(any)), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&any, &len), 0);
    fd = host(*state, ntohs(any.sin_port), SM_WIRE_PROXY_TCP | SM_WIRE_PROXY_OUTSIDE);
    int guest = accept4(listener, (struct sockaddr *)&from, &len, SOCK_CLOEXEC);
    assert_true(guest >= 0);
    assert_int_equal(ntohl(from.sin_addr.s_addr), 0x7f070707);
    assert_int_equal(send(guest, "hello", 5, 0), 5);
    expect_bytes(fd, "hello");
    close(guest);
    close(fd);
    int udp = service(SOCK_DGRAM, false, &port);
    fd = host(*state, port, SM_WIRE_PROXY_UDP | SM_WIRE_PROXY_OUTSIDE);
    assert_int_equal(send(fd, "\1\0x", 3, 0), 3);
    usleep(100000);
    char c;
    assert_int_equal(recv(udp, &c, 1, MSG_DONTWAIT), -1);
    close(fd);
    close(udp);
    close(listener);
    close(loopback6);
    close(loopback);
}

static void test_nobody_listens(void **state)
{
    uint16_t port;
    int gone = service(SOCK_STREAM, false, &port);
    close(gone);
    int fd = host(*state, port, SM_WIRE_PROXY_TCP);
    expect_end(fd);
    close(fd);
    fd = host(*state, 80, 99); /* no such protocol */
    expect_end(fd);
    close(fd);
    fd = host(*state, 0, SM_WIRE_PROXY_TCP);
    expect_end(fd);
    close(fd);
}

/* More than all buffers hold, in both directions at once, with a reader that comes late. */
static void test_pressure(void **state)
{
    enum { BYTES = 8 << 20 };
    uint16_t port;
    int listener = service(SOCK_STREAM, false, &port);
    int fd = host(*state, port, SM_WIRE_PROXY_TCP);
    int guest = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(guest >= 0);
    struct {
        int fd;
        size_t sent, got;
    } ends[2] = {{.fd = fd}, {.fd = guest}};
    static uint8_t chunk[65536];
    while (ends[0].got < BYTES || ends[1].got < BYTES) {
        struct pollfd p[2];
        for (int i = 0; i < 2; i++)
            p[i] = (struct pollfd){.fd = ends[i].fd,
                .events = (short)((ends[i].sent < BYTES ? POLLOUT : 0) |
                                  (ends[0].sent + ends[1].sent > (4 << 20) ? POLLIN : 0))};
        assert_true(poll(p, 2, PATIENCE_MS) > 0);
        for (int i = 0; i < 2; i++) {
            if (p[i].revents & POLLOUT) {
                for (size_t k = 0; k < sizeof(chunk); k++)
                    chunk[k] = (uint8_t)((ends[i].sent + k) / 251 + (size_t)i);
                ssize_t n = send(
                    ends[i].fd, chunk, SM_MIN(sizeof(chunk), BYTES - ends[i].sent), MSG_DONTWAIT);
                if (n > 0)
                    ends[i].sent += (size_t)n;
            }
            if (p[i].revents & POLLIN) {
                ssize_t n = recv(ends[i].fd, chunk, sizeof(chunk), MSG_DONTWAIT);
                assert_true(n > 0);
                for (size_t k = 0; k < (size_t)n; k++)
                    if (chunk[k] != (uint8_t)((ends[i].got + k) / 251 + (size_t)!i))
                        fail_msg("byte %zu of direction %d is wrong", ends[i].got + k, i);
                ends[i].got += (size_t)n;
            }
        }
        /* Neither side reads before 4 MiB wait, unless the pipes are full before that. */
        if (ends[0].sent + ends[1].sent <= (4 << 20) && !(p[0].revents | p[1].revents))
            break;
    }
    close(fd);
    expect_end(guest);
    close(guest);
    close(listener);
}

static void test_many(void **state)
{
    enum { N = 700 }; /* more than 1024 descriptors in the agent */
    struct rlimit files;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = SM_MIN(files.rlim_max, (rlim_t)4096);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    uint16_t port;
    int listener = service(SOCK_STREAM, false, &port);
    int fds[N], guests[N];
    for (int i = 0; i < N; i++) {
        fds[i] = host(*state, port, SM_WIRE_PROXY_TCP);
        guests[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(guests[i] >= 0);
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(send(guests[i], &i, sizeof(i), 0), sizeof(i));
        close(guests[i]);
    }
    for (int i = 0; i < N; i++) {
        int got;
        assert_int_equal(recv(fds[i], &got, sizeof(got), MSG_WAITALL), sizeof(got));
        assert_int_equal(got, i);
        expect_end(fds[i]);
        close(fds[i]);
    }
    close(listener);
}

static void test_udp(void **state)
{
    uint16_t port;
    int guest = service(SOCK_DGRAM, false, &port);
    int fd = host(*state, port, SM_WIRE_PROXY_UDP);
    assert_int_equal(send(fd, "\3\0one\3", 6, 0), 6);
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    char buf[64];
    assert_int_equal(recvfrom(guest, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len), 3);
    assert_memory_equal(buf, "one", 3);
    assert_int_equal(send(fd, "\0two", 4, 0), 4);
    assert_int_equal(recv(guest, buf, sizeof(buf), 0), 3);
    assert_memory_equal(buf, "two", 3);
    assert_int_equal(sendto(guest, "back", 4, 0, (struct sockaddr *)&from, len), 4);
    assert_int_equal(recv(fd, buf, 6, MSG_WAITALL), 6);
    assert_memory_equal(buf, "\4\0back", 6);
    close(fd);
    close(guest);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, agent_setup, agent_teardown)
    const struct CMUnitTest tests[] = {
        T(test_tcp),
        T(test_tcp_v6),
        T(test_says_ok),
        T(test_nobody_listens),
        T(a_service_at_the_cards_address_is_reached_by_the_owner),
        T(datagrams_reach_who_is_bound_to_the_card_or_to_the_loopback),
        T(test_outside),
        T(test_pressure),
        T(test_many),
        T(test_udp),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
