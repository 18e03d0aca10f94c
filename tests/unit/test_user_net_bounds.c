/*
 * What a guest can make the user-mode network keep: everything that libslirp queues is tried, with
 * the real one, and what the process has allocated stays within the bound of docs/network.md.
 *
 * In a network namespace of its own where that can be had: with small socket buffers in the kernel,
 * so that those of libslirp fill, and with an interface that swallows all that is sent to
 * 198.51.100.0/24.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "net/flows.h"
#include "own_network.h"
#include "user_net_guest.h"

#define SLACK      (64u << 20)  /* of the bound, ... */
#define CONNECTION (256u << 10) /* ... and what each connection may have on top */

static bool own_network, swallows;
static size_t at_start; /* allocated */

/* ---- what the process has ------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
size_t __sanitizer_get_current_allocated_bytes(void);

static size_t allocated(void)
{
    return __sanitizer_get_current_allocated_bytes();
}
#else
static size_t status_kib(const char *name)
{
    FILE *in = fopen("/proc/self/status", "re");
    size_t kib = 0;
    assert_non_null(in);
    char line[128];
    while (fgets(line, sizeof(line), in)) {
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtoul(line + strlen(name) + 1, NULL, 10);
    }
    fclose(in);
    return kib;
}

/* The larger of what is resident and what is mapped to be written. */
static size_t allocated(void)
{
    size_t data = status_kib("VmData") << 10, rss = status_kib("VmRSS") << 10;
    print_message("         VmRSS %zu KiB, VmData %zu KiB\n", rss >> 10, data >> 10);
    return SM_MAX(data, rss);
}
#endif

static void assert_bounded(size_t connections)
{
    size_t now = allocated(), bound = SLACK + connections * CONNECTION;
    print_message("         %zu KiB more, the bound is %zu KiB\n",
        now > at_start ? (now - at_start) >> 10 : 0, bound >> 10);
    assert_true(now <= at_start + bound);
}

/* ---- many frames at once -------------------------------------------------------------------- */

struct burst {
    struct fixture *f;
    unsigned n;
    size_t (*make)(void *arg, unsigned i, uint8_t *frame);
    void *arg;
};

static void do_burst(void *arg)
{
    static const struct virtio_net_hdr_v1 hdr;
    static uint8_t frame[65536 + 64];
    struct burst *b = arg;
    for (unsigned i = 0; i < b->n; i++) {
        size_t len = b->make(b->arg, i, frame);
        b->f->backend->ops->send(b->f->backend, &hdr, frame, len);
    }
    b->f->backend->ops->sent_all(b->f->backend);
}

static void burst(
    struct fixture *f, unsigned n, size_t (*make)(void *arg, unsigned i, uint8_t *frame), void *arg)
{
    struct burst b = {.f = f, .n = n, .make = make, .arg = arg};
    sm_loop_run(f->loop, do_burst, &b);
}

/* ---- connections ---------------------------------------------------------------------------- */

struct server {
    int fd;
    uint16_t port;
    char policy[64];
};

static struct server serve(void)
{
    struct server s;
    s.fd = loopback_socket(SOCK_STREAM, &s.port);
    assert_int_equal(listen(s.fd, 4096), 0);
    snprintf(s.policy, sizeof(s.policy), "layer all\nallow host-loopback:%u\n", s.port);
    return s;
}

/* Opens one to the server; what comes next in both directions is in *s. Returns the server's
 * socket. */
static int open_connection(
    struct fixture *f, const struct server *server, uint16_t sport, struct segment *s)
{
    *s = (struct segment){.dst = sm_subnet_v4.gateway,
        .sport = sport,
        .dport = server->port,
        .seq = 1000,
        .flags = SM_TCP_ACK};
    send_tcp(f, &s->dst, sport, server->port, s->seq++, 0, SM_TCP_SYN, "");
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    do {
        expect(f, SM_IP_TCP, frame, sizeof(frame), &parsed);
    } while (parsed.dport != sport || !(parsed.tcp_flags & SM_TCP_SYN));
    s->ack = sm_load_be32(frame + 38) + 1;
    send_tcp(f, &s->dst, sport, server->port, s->seq, s->ack, SM_TCP_ACK, "");
    return accept4(server->fd, NULL, NULL, SOCK_CLOEXEC);
}

static size_t gap_of_one(void *arg, unsigned i, uint8_t *frame)
{
    struct segment s = *(struct segment *)arg;
    s.seq += 2 + 2 * (i % 32000);
    s.len = 1;
    return make_segment(frame, &s);
}

/* Segments of a byte, the first never sent. */
static void test_out_of_order(void **state)
{
    (void)state;
    struct server server = serve();
    struct fixture *f = start(server.policy, 0);
    struct segment s[8];
    int conn[8];
    char text[8] = "";
    for (int i = 0; i < 8; i++)
        conn[i] = open_connection(f, &server, (uint16_t)(5000 + i), &s[i]);
    for (int i = 0; i < 8; i++)
        burst(f, 3000, gap_of_one, &s[i]);
    assert_bounded(8);
    /* In order all goes on, also where there are many of the others. */
    for (int i = 0; i < 8; i++) {
        send_tcp(f, &s[i].dst, s[i].sport, server.port, s[i].seq, s[i].ack, 0x18, "abc");
        assert_true(recv(conn[i], text, 3, MSG_WAITALL) == 3);
        assert_memory_equal(text, "abc", 3);
        close(conn[i]);
    }
    stop(f);
    close(server.fd);
}

static size_t in_order(void *arg, unsigned i, uint8_t *frame)
{
    (void)i;
    struct segment *s = arg;
    size_t len = make_segment(frame, s);
    s->seq += (uint32_t)s->len;
    return len;
}

/* Half around the circle of sequence numbers libslirp's arithmetic can take a segment for one in
 * its window. */
static void test_half_around(void **state)
{
    (void)state;
    struct segment s = {.dst = sm_subnet_v4.gateway, .sport = 5000, .dport = 80};
    struct sm_flow *flow = malloc(sizeof(*flow));
    s.flags = SM_TCP_SYN;
    uint8_t frame[256];
    struct sm_frame f;
    sm_frame_parse(frame, make_segment(frame, &s), &f);
    static struct sm_flows flows;
    sm_flows_insert(&flows, flow, frame, &f, 0);
    s.flags = SM_TCP_ACK;
    s.ack = 5000;
    sm_frame_parse(frame, make_segment(frame, &s), &f);
    sm_flows_sent(&flows, flow, frame, &f, 0); /* 5000 is what it expects */
    s.len = 1;
    for (uint32_t at = 0; at < 4; at++) {
        s.seq = 5000 + ((uint32_t[]){0, 0x80000001, 0x80000000, 1})[at];
        sm_frame_parse(frame, make_segment(frame, &s), &f);
        assert_true(sm_flows_admit(&flows, flow, frame, &f, 0));
        assert_int_equal(flows.ahead, at < 2 ? 0 : at - 1);
    }
    sm_flows_remove(&flows, flow);
    assert_int_equal(flows.ahead + flows.connecting, 0);
}

/* The order comes about by itself: from behind, within what may wait. */
static void test_reordered(void **state)
{
    (void)state;
    struct server server = serve();
    struct fixture *f = start(server.policy, 0);
    struct segment s;
    int conn = open_connection(f, &server, 5000, &s);
    char text[64] = "";
    for (int round = 0; round < 20; round++) {
        for (int i = 9; i >= 0; i--)
            send_tcp(f, &s.dst, 5000, server.port, s.seq + 2 * (uint32_t)i, s.ack, 0x18,
                (const char[]){(char)('a' + i), (char)('A' + i), '\0'});
        assert_true(recv(conn, text, 20, MSG_WAITALL) == 20);
        assert_memory_equal(text, "aAbBcCdDeEfFgGhHiIjJ", 20);
        s.seq += 20;
    }
    close(conn);
    stop(f);
    close(server.fd);
}

static size_t first_fragment(void *arg, unsigned i, uint8_t *frame)
{
    static const char data[8] = "fragment";
    struct sm_udp_packet p = {.dst_mac = gateway_mac,
        .src_mac = sm_user_net_mac,
        .src = sm_subnet_v4.guest,
        .sport = 4000,
        .dport = 80,
        .payload = data,
        .len = sizeof(data)};
    assert_true(sm_ip_parse(arg, &p.dst));
    size_t len = sm_frame_make_udp(frame, 2048, &p);
    sm_store_be16(frame + 18, (uint16_t)i); /* identification */
    sm_store_be16(frame + 20, 0x2000);
    memset(frame + 24, 0, 2);
    uint16_t sum = sm_inet_finish(sm_inet_sum(frame + 14, 20, 0));
    memcpy(frame + 24, &sum, 2);
    return len;
}

static void test_fragments(void **state)
{
    (void)state;
    struct fixture *f = start("", 0);
    burst(f, 3000, first_fragment, (void *)(uintptr_t) "198.51.100.2");
    assert_bounded(0);
    stop(f);
}

/* Peers that send much to a guest that has not said where it is. */
static void test_silent_guest(void **state)
{
    enum { PORTS = 400 };
    uint16_t port;
    int host = loopback_socket(SOCK_DGRAM, &port);
    uint8_t frame[RX_SIZE], buf[1400] = {0};
    struct sm_frame parsed;
    struct sockaddr_in from[PORTS];
    size_t answers = 0;
    char text[64];

    (void)state;
    snprintf(text, sizeof(text), "layer all\nallow host-loopback:%u\n", port);
    struct fixture *f = start(text, 0);
    for (unsigned i = 0; i < PORTS; i++) {
        socklen_t len = sizeof(from[i]);
        send_udp(f, false, &sm_subnet_v4.gateway, (uint16_t)(4000 + i), port, "x", 1);
        assert_true(recvfrom(host, buf, sizeof(buf), 0, (struct sockaddr *)&from[i], &len) == 1);
    }
    for (unsigned i = 0; i < PORTS * 8; i++)
        sendto(host, buf, sizeof(buf), 0, (struct sockaddr *)&from[i % PORTS], sizeof(from[0]));
    usleep(300000);
    assert_bounded(0);
    /* It was asked nothing, and has all the same what was sent. */
    while (receive(f, frame, sizeof(frame), PATIENCE_MS)) {
        sm_frame_parse(frame, sizeof(frame), &parsed);
        assert_int_equal(parsed.kind, SM_FRAME_IP);
        assert_int_equal(parsed.protocol, SM_IP_UDP);
        if (++answers == 100)
            break;
    }
    assert_int_equal(answers, 100);
    stop(f);
    close(host);
}

static size_t syn_with_data(void *arg, unsigned i, uint8_t *frame)
{
    struct segment s = {.sport = (uint16_t)(10000 + i),
        .dport = 80,
        .seq = 1,
        .flags = SM_TCP_SYN,
        .len = i % 2 ? 65000 : 0};
    assert_true(sm_ip_parse(arg, &s.dst));
    return make_segment(frame, &s);
}

static size_t big_echo(void *arg, unsigned i, uint8_t *frame)
{
    struct segment s = {.len = 65000};
    assert_true(sm_ip_parse(arg, &s.dst));
    size_t len = make_segment(frame, &s);
    frame[23] = SM_IP_ICMP;
    memset(frame + 24, 0, 2);
    uint16_t sum = sm_inet_finish(sm_inet_sum(frame + 14, 20, 0));
    memcpy(frame + 24, &sum, 2);
    memset(frame + 34, 0, 8);
    frame[34] = SM_ICMP_ECHO;
    sm_store_be16(frame + 40, (uint16_t)i);
    sum = sm_inet_finish(sm_inet_sum(frame + 34, len - 34, 0));
    memcpy(frame + 36, &sum, 2);
    return len;
}

/* Connections and echo requests that nobody answers: the frame waits with each. */
static void test_unanswered(void **state)
{
    (void)state;
    if (!swallows)
        skip();
    struct fixture *f = start("", 0);
    burst(f, 2000, syn_with_data, (void *)(uintptr_t) "198.51.100.2");
    burst(f, 2000, big_echo, (void *)(uintptr_t) "198.51.100.3");
    assert_true(atomic_load(&sm_user_net_counters(f->backend)->sockets) >= 256);
    assert_bounded(256);
    stop(f);
}

/* Both directions of as many connections as there may be: peers that do not read, a guest that does
 * not. */
static void test_full_connections(void **state)
{
    enum { N = SM_USER_NET_SOCKETS };
    struct server server = serve();
    struct fixture *f = start(server.policy, 0);
    static struct segment s[N];
    static int conn[N];
    static uint8_t much[160 << 10];
    unsigned n = own_network ? N : 16;

    (void)state;
    for (unsigned i = 0; i < n; i++) {
        conn[i] = open_connection(f, &server, (uint16_t)(5000 + i), &s[i]);
        assert_true(conn[i] >= 0);
        fcntl(conn[i], F_SETFL, O_NONBLOCK);
    }
    for (unsigned i = 0; i < n; i++) {
        s[i].len = 1400;
        burst(f, 200, in_order, &s[i]);
    }
    for (int round = 0; round < 40; round++) {
        for (unsigned i = 0; i < n; i++)
            (void)!send(conn[i], much, sizeof(much), MSG_NOSIGNAL);
        usleep(10000);
    }
    for (unsigned i = 0; i < n; i++) { /* and then what is not in order */
        s[i].seq += 100000;
        burst(f, 20, gap_of_one, &s[i]);
    }
    assert_int_equal(atomic_load(&sm_user_net_counters(f->backend)->sockets), n);
    assert_bounded(n);
    for (unsigned i = 0; i < n; i++)
        close(conn[i]);
    stop(f);
    close(server.fd);
}

/* Peers that have closed, and a guest that does not: these connections end only to make room. */
static void test_oldest_makes_room(void **state)
{
    (void)state;
    struct server server = serve();
    struct fixture *f = start(server.policy, 8);
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    struct segment s[9];
    int64_t begin = sm_now_ms();
    for (int i = 0; i < 8; i++) {
        int conn = open_connection(f, &server, (uint16_t)(5000 + i), &s[i]);
        shutdown(conn, SHUT_WR);
        do {
            expect(f, SM_IP_TCP, frame, sizeof(frame), &parsed);
        } while (!(parsed.tcp_flags & SM_TCP_FIN));
        send_tcp(f, &s[i].dst, s[i].sport, server.port, s[i].seq, ++s[i].ack, SM_TCP_ACK, "");
        close(conn);
    }
    wait_sockets(f, 8);
    send_tcp(f, &s[0].dst, 6000, server.port, 1000, 0, SM_TCP_SYN, "");
    size_t answer = receive(f, frame, sizeof(frame), 200);
    if (sm_now_ms() - begin < 1500) /* otherwise, on a busy host, one may have been idle */
        assert_int_equal(answer, 0);
    usleep(2100000);
    close(open_connection(f, &server, 6001, &s[8]));
    wait_sockets(f, 8);
    send_tcp(f, &s[7].dst, 5007, server.port, s[7].seq, s[7].ack, SM_TCP_ACK, "later");
    expect(f, SM_IP_TCP, frame, sizeof(frame), &parsed);
    stop(f);
    close(server.fd);
}

/* UDP alone cannot take all sockets; and what could not be made is not counted as closed. */
static void test_room_for_tcp(void **state)
{
    (void)state;
    struct server server = serve();
    struct fixture *f = start("layer all\nallow host-loopback\n", 8);
    for (unsigned i = 0; i < 200; i++)
        send_udp(f, false, &sm_subnet_v4.gateway, (uint16_t)(10000 + i), 9, "x", 1);
    assert_int_equal(atomic_load(&sm_user_net_counters(f->backend)->sockets), 6);
    struct rlimit files;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    struct rlimit none = files;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (uint16_t i = 0; i < 3; i++)
        send_tcp(f, &sm_subnet_v4.gateway, 5000 + i, server.port, 1, 0, SM_TCP_SYN, "");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    assert_int_equal(atomic_load(&sm_user_net_counters(f->backend)->sockets), 6);
    struct segment s;
    close(open_connection(f, &server, 6000, &s));
    stop(f);
    close(server.fd);
}

/* A tunnel whose end nobody reads, and echo requests for everybody. */
static bool make_swallow(void)
{
    struct ifreq request = {.ifr_name = "swallow", .ifr_flags = IFF_TUN | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC); /* open until the end */
    return fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0 &&
           write_text("/proc/sys/net/ipv4/ping_group_range", "0 0") &&
           system("ip link set swallow up && ip addr add 198.51.100.1/24 dev swallow") == 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_out_of_order),
        cmocka_unit_test(test_half_around),
        cmocka_unit_test(test_reordered),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_silent_guest),
        cmocka_unit_test(test_unanswered),
        cmocka_unit_test(test_full_connections),
        cmocka_unit_test(test_oldest_makes_room),
        cmocka_unit_test(test_room_for_tcp),
    };
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = SM_MIN(files.rlim_max, 8192u);
        setrlimit(RLIMIT_NOFILE, &files);
    }
    at_start = allocated();
    own_network = enter_own_network() &&
                  write_text("/proc/sys/net/ipv4/tcp_wmem", "4096 4096 4096") &&
                  write_text("/proc/sys/net/ipv4/tcp_rmem", "4096 4096 4096");
    swallows = own_network && make_swallow();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
