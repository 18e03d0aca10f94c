/*
 * The user-mode network from the guest's side: frames in at virtio-net, frames out, real sockets on the
 * host's loopback behind it (opened by `host-loopback`), and a resolver of the test's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_guest.h"
#include "net/frame.h"
#include "net/user_net.h"
#include "util/clock.h"
#include "util/inet_checksum.h"

#define RX_BUFFERS 32
#define RX_SIZE    4096

struct fixture {
    struct fg fg;
    struct sm_loop *loop;
    struct sm_virtio_env env;
    struct sm_net_backend *backend;
    struct sm_virtio_dev *dev;
    struct fg_queue q[2];
    uint64_t tx;
    int resolver; /* UDP socket that plays the host's name server */
    uint16_t resolver_port;
    char conf[64];
    atomic_uint reports;
    enum sm_verdict last;
    char last_name[64];
};

static void on_denied(void *arg, const struct sm_denial *d)
{
    struct fixture *f = arg;

    f->last = d->verdict;
    snprintf(f->last_name, sizeof(f->last_name), "%s", d->name ? d->name : "");
    atomic_fetch_add(&f->reports, 1);
}

static int loopback_socket(int type, uint16_t *port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    *port = ntohs(addr.sin_port);
    return fd;
}

static struct fixture *start(const char *policy_text, unsigned max_sockets)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct sm_policy policy = {0};
    struct sm_user_net_config config = {
        .policy = &policy, .denied = on_denied, .denied_arg = f, .max_sockets = max_sockets};
    FILE *out;
    int fd;

    assert_non_null(f);
    f->resolver = loopback_socket(SOCK_DGRAM, &f->resolver_port);
    strcpy(f->conf, "/tmp/sm-test-resolv-XXXXXX");
    fd = mkstemp(f->conf);
    out = fdopen(fd, "w");
    assert_non_null(out);
    fprintf(out, "# test\nsearch x\nnameserver [127.0.0.1]:%u\n", f->resolver_port);
    fclose(out);
    config.resolv_conf = f->conf;
    assert_int_equal(sm_policy_parse(policy_text, strlen(policy_text), &policy, NULL), 0);
    fg_init(&f->fg);
    assert_int_equal(sm_loop_create(&f->loop, NULL), 0);
    f->env = (struct sm_virtio_env){
        .loop = f->loop, .memory = &f->fg.gm, .irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    assert_int_equal(sm_user_net_create(f->loop, &config, &f->backend, NULL), 0);
    assert_int_equal(sm_virtio_net_create(&f->env, sm_user_net_mac, f->backend, &f->dev, NULL), 0);
    assert_int_equal(sm_loop_start(f->loop, "net-test", NULL), 0);
    fg_probe(&f->fg, f->dev, UINT64_MAX, f->q, 2, 64);
    f->tx = fg_alloc(&f->fg, 65536);
    for (int i = 0; i < RX_BUFFERS; i++)
        fg_send(&f->q[SM_NET_RX], 0, 0, fg_alloc(&f->fg, RX_SIZE), RX_SIZE);
    return f;
}

static void stop(struct fixture *f)
{
    sm_virtio_destroy(f->dev);
    sm_loop_destroy(f->loop);
    close(f->env.irq_fd);
    close(f->resolver);
    unlink(f->conf);
    fg_fini(&f->fg);
    free(f);
}

static void send_frame(struct fixture *f, const uint8_t *frame, size_t len)
{
    int64_t deadline = sm_deadline(5000);

    memset(fg_ptr(&f->fg, f->tx), 0, SM_NET_HDR);
    memcpy(fg_ptr(&f->fg, f->tx) + SM_NET_HDR, frame, len);
    fg_send(&f->q[SM_NET_TX], f->tx, (uint32_t)(SM_NET_HDR + len), 0, 0);
    fg_kick(f->dev, SM_NET_TX);
    while (!fg_used(&f->q[SM_NET_TX], NULL, NULL)) {
        if (sm_deadline_left(deadline) == 0)
            fail_msg("the frame was not taken");
        usleep(200);
    }
}

/* The next frame to the guest, within a time; its buffer goes back. Returns the length or 0. */
static size_t receive(struct fixture *f, uint8_t *frame, size_t room, int timeout_ms)
{
    int64_t deadline = sm_deadline(timeout_ms);
    uint32_t id, len;

    while (!fg_used(&f->q[SM_NET_RX], &id, &len)) {
        if (sm_deadline_left(deadline) == 0)
            return 0;
        usleep(200);
    }
    const uint8_t *desc = fg_ptr(&f->fg, f->q[SM_NET_RX].desc + 16 * (uint64_t)id);
    const uint8_t *data = fg_ptr(&f->fg, sm_load_le64(desc));

    assert_int_equal(sm_load_le16(data + 10), 1); /* one buffer */
    assert_int_equal(data[0], VIRTIO_NET_HDR_F_DATA_VALID);
    len -= SM_NET_HDR;
    assert_true(len <= room);
    memcpy(frame, data + SM_NET_HDR, len);
    fg_offer(&f->q[SM_NET_RX], id);
    fg_kick(f->dev, SM_NET_RX);
    return len;
}

static const uint8_t gateway_mac[6] = {0x52, 0x55, 10, 0, 2, 2};

/* Waits for a frame of this protocol, answering ARP on the way. */
static size_t expect(
    struct fixture *f, uint8_t protocol, uint8_t *frame, size_t room, struct sm_frame *parsed)
{
    for (int i = 0; i < 20; i++) {
        size_t len = receive(f, frame, room, 5000);

        if (len == 0)
            fail_msg("no frame of protocol %u came", protocol);
        sm_frame_parse(frame, len, parsed);
        if (parsed->kind == SM_FRAME_ARP && frame[21] == 1) { /* who has us? */
            uint8_t reply[42];

            memcpy(reply, frame, 42);
            reply[21] = 2;
            memcpy(reply, frame + 6, 6);
            memcpy(reply + 6, sm_user_net_mac, 6);
            memcpy(reply + 22, sm_user_net_mac, 6);
            memcpy(reply + 28, frame + 38, 4);
            memcpy(reply + 32, frame + 22, 10);
            send_frame(f, reply, 42);
        } else if (parsed->kind == SM_FRAME_IP && parsed->protocol == protocol) {
            return len;
        } else if (parsed->kind == SM_FRAME_IP && parsed->icmp_type == SM_ICMPV6_NS) {
            uint8_t reply[14 + 40 + 32] = {0};
            uint32_t sum;
            uint16_t done;

            memcpy(reply, frame + 6, 6);
            memcpy(reply + 6, sm_user_net_mac, 6);
            memcpy(reply + 12, "\x86\xdd\x60\0\0\0\0\x20\x3a\xff", 10);
            memcpy(reply + 22, frame + 62, 16); /* target */
            memcpy(reply + 38, frame + 22, 16);
            reply[54] = SM_ICMPV6_NA;
            reply[58] = 0x60;
            memcpy(reply + 62, frame + 62, 16);
            reply[78] = 2;
            reply[79] = 1;
            memcpy(reply + 80, sm_user_net_mac, 6);
            sum = sm_inet_sum("\0\0\0\x20\0\0\0\x3a", 8, sm_inet_sum(reply + 22, 32, 0));
            done = sm_inet_finish(sm_inet_sum(reply + 54, 32, sum));
            memcpy(reply + 56, &done, 2);
            send_frame(f, reply, sizeof(reply));
        }
    }
    fail_msg("no frame of protocol %u came", protocol);
    return 0;
}

static void send_udp(struct fixture *f, bool v6, const struct sm_ip *dst, uint16_t sport,
    uint16_t dport, const void *data, size_t len)
{
    uint8_t frame[2048];
    struct sm_udp_packet p = {.dst_mac = gateway_mac,
        .src_mac = sm_user_net_mac,
        .src = v6 ? sm_subnet_v6.guest : sm_subnet_v4.guest,
        .dst = *dst,
        .sport = sport,
        .dport = dport,
        .payload = data,
        .len = len};

    send_frame(f, frame, sm_frame_make_udp(frame, sizeof(frame), &p));
}

static void test_udp_to_host(void **state)
{
    uint16_t port, closed;
    int host = loopback_socket(SOCK_DGRAM, &port), other = loopback_socket(SOCK_DGRAM, &closed);
    char text[64];
    uint8_t frame[RX_SIZE], buf[64];
    struct sm_frame parsed;
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    struct pollfd p = {.fd = other, .events = POLLIN};

    (void)state;
    snprintf(text, sizeof(text), "layer all\nallow host-loopback:%u\n", port);
    struct fixture *f = start(text, 0);
    send_udp(f, false, &sm_subnet_v4.gateway, 4000, port, "ping", 4);
    p.fd = host;
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_int_equal(recvfrom(host, buf, sizeof(buf), 0, (struct sockaddr *)&from, &from_len), 4);
    assert_int_equal(sendto(host, "pong!", 5, 0, (struct sockaddr *)&from, from_len), 5);
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

/* Enough TCP for a connection: SYN, data, FIN by hand. */
static void send_tcp(struct fixture *f, const struct sm_ip *dst, uint16_t sport, uint16_t dport,
    uint32_t seq, uint32_t ack, uint8_t flags, const char *data)
{
    uint8_t frame[256] = {0}, pseudo[12] = {0};
    size_t len = strlen(data), total = 20 + 20 + len;
    uint8_t *ip = frame + 14, *tcp = ip + 20;
    uint16_t sum;

    memcpy(frame, gateway_mac, 6);
    memcpy(frame + 6, sm_user_net_mac, 6);
    frame[12] = 8;
    ip[0] = 0x45;
    ip[3] = (uint8_t)total;
    ip[8] = 64;
    ip[9] = SM_IP_TCP;
    memcpy(ip + 12, sm_subnet_v4.guest.b + 12, 4);
    memcpy(ip + 16, dst->b + 12, 4);
    sum = sm_inet_finish(sm_inet_sum(ip, 20, 0));
    memcpy(ip + 10, &sum, 2);
    *(uint16_t *)(void *)tcp = htons(sport);
    *(uint16_t *)(void *)(tcp + 2) = htons(dport);
    uint32_t be = htonl(seq);
    memcpy(tcp + 4, &be, 4);
    be = htonl(ack);
    memcpy(tcp + 8, &be, 4);
    tcp[12] = 0x50;
    tcp[13] = flags;
    tcp[14] = 0xff;
    memcpy(tcp + 20, data, len);
    memcpy(pseudo, ip + 12, 8);
    pseudo[9] = SM_IP_TCP;
    pseudo[11] = (uint8_t)(20 + len);
    sum = sm_inet_finish(sm_inet_sum(tcp, 20 + len, sm_inet_sum(pseudo, 12, 0)));
    memcpy(tcp + 16, &sum, 2);
    send_frame(f, frame, 14 + total);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void wait_sockets(struct fixture *f, unsigned want)
{
    int64_t deadline = sm_deadline(5000);

    while (atomic_load(&sm_user_net_counters(f->backend)->sockets) != want) {
        if (sm_deadline_left(deadline) == 0)
            fail_msg("%u sockets are open, want %u",
                atomic_load(&sm_user_net_counters(f->backend)->sockets), want);
        usleep(1000);
    }
}

static void test_tcp_to_host(void **state)
{
    uint16_t port;
    int host = loopback_socket(SOCK_STREAM, &port), conn;
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    char text[64], buf[16];
    uint32_t seq = 1000, ack;

    (void)state;
    assert_int_equal(listen(host, 4), 0);
    snprintf(text, sizeof(text), "layer public\nallow host-loopback:%u\n", port);
    struct fixture *f = start(text, 0);
    send_tcp(f, &sm_subnet_v4.gateway, 5000, port, seq++, 0, SM_TCP_SYN, "");
    expect(f, SM_IP_TCP, frame, sizeof(frame), &parsed);
    assert_int_equal(parsed.tcp_flags & (SM_TCP_SYN | 0x10), SM_TCP_SYN | 0x10);
    ack = be32(frame + 34 + 4) + 1;
    send_tcp(f, &sm_subnet_v4.gateway, 5000, port, seq, ack, 0x18, "hello");
    seq += 5;
    conn = accept4(host, NULL, NULL, SOCK_CLOEXEC);
    assert_true(conn >= 0);
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
    uint16_t port;
    int host = loopback_socket(SOCK_STREAM, &port);
    static const char *const names[] = {"127.0.0.1", "0.0.0.0", "10.0.2.2"};
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    struct pollfd p = {.fd = host, .events = POLLIN};

    (void)state;
    assert_int_equal(listen(host, 4), 0);
    struct fixture *f = start("", 0);
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++) {
        struct sm_ip ip;

        assert_true(sm_ip_parse(names[i], &ip));
        send_tcp(f, &ip, 5000, port, 1, 0, SM_TCP_SYN, "");
        expect(f, SM_IP_TCP, frame, sizeof(frame), &parsed);
        assert_int_equal(parsed.tcp_flags, SM_TCP_RST | SM_TCP_ACK);
        assert_int_equal(be32(frame + 34 + 8), 2);
    }
    assert_int_equal(poll(&p, 1, 200), 0);
    close(host);
    stop(f);
}

/* Gateway and name server have an address before libslirp is there. */
static void test_arp(void **state)
{
    uint8_t request[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, reply[64];

    (void)state;
    struct fixture *f = start("layer none\n", 0);
    memcpy(request + 6, sm_user_net_mac, 6);
    memcpy(request + 12, "\x08\x06\0\1\x08\0\6\4\0\1", 10);
    memcpy(request + 22, sm_user_net_mac, 6);
    memcpy(request + 28, "\x0a\0\2\x0f\0\0\0\0\0\0\x0a\0\2\2", 14);
    for (int i = 2; i <= 3; i++) {
        request[41] = (uint8_t)i;
        send_frame(f, request, sizeof(request));
        assert_int_equal(receive(f, reply, sizeof(reply), 5000), 42);
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

static void test_ping_gateway(void **state)
{
    uint8_t frame[RX_SIZE], echo[14 + 20 + 16] = {0};
    struct sm_frame parsed;
    uint16_t sum;

    (void)state;
    struct fixture *f = start("layer none\n", 0);
    memcpy(echo, gateway_mac, 6);
    memcpy(echo + 6, sm_user_net_mac, 6);
    echo[12] = 8;
    memcpy(echo + 14, "\x45\0\0\x24\0\0\0\0\x40\1\0\0\x0a\0\2\x0f\x0a\0\2\2", 20);
    sum = sm_inet_finish(sm_inet_sum(echo + 14, 20, 0));
    memcpy(echo + 24, &sum, 2);
    memcpy(echo + 34, "\x08\0\0\0\0\1\0\1abcdefgh", 16);
    sum = sm_inet_finish(sm_inet_sum(echo + 34, 16, 0));
    memcpy(echo + 36, &sum, 2);
    send_frame(f, echo, sizeof(echo));
    expect(f, SM_IP_ICMP, frame, sizeof(frame), &parsed);
    assert_int_equal(parsed.icmp_type, 0);
    assert_memory_equal(frame + parsed.payload, "abcdefgh", 8);
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

    if (poll(&p, 1, 5000) != 1)
        fail_msg("the resolver was not asked for %s", label);
    n = recvfrom(f->resolver, msg, sizeof(msg), 0, (struct sockaddr *)&from, &from_len);
    assert_true(n > 12);
    assert_memory_equal(msg + 13, label, strlen(label));
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
    uint8_t frame[RX_SIZE];

    (void)state;
    struct fixture *f = start("", 0);
    for (int v6 = 0; v6 < 2; v6++) {
        ask(f, v6, "www");
        resolve(f, "www", (uint8_t[]){10, 1, 2, 3}, 60); /* private is fine without a policy */
        assert_int_equal(dns_answer(f, v6, frame, sizeof(frame)), 0);
    }
    stop(f);
}

static void test_dns_policy(void **state)
{
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;
    struct sm_ip target;

    (void)state;
    struct fixture *f = start("layer none\nallow *.example.com:9\ndeny bad.example.com\n", 0);
    ask(f, false, "bad");
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

    /* Not known yet: refused. After the answer the same address is let through, on the one port. */
    assert_true(sm_ip_parse("1.1.1.1", &target));
    assert_null(sm_names_find(&sm_user_net_egress(f->backend)->names, &target, 0));
    send_udp(f, false, &target, 7000, 9, "x", 1);
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
    struct fixture *f = start("", 0);
    uint8_t frame[RX_SIZE];

    (void)state;
    close(f->resolver); /* refused at once: SERVFAIL after the tries, not after their time */
    f->resolver = -1;
    ask(f, false, "www");
    assert_int_equal(dns_answer(f, false, frame, sizeof(frame)), 2);
    stop(f);
}

/* ---- floods --------------------------------------------------------------------------------- */

static void test_socket_limit(void **state)
{
    uint16_t port;
    int host = loopback_socket(SOCK_DGRAM, &port);
    char text[64];

    (void)state;
    snprintf(text, sizeof(text), "layer all\nallow host-loopback:%u\n", port);
    struct fixture *f = start(text, 8);
    for (unsigned i = 0; i < 200; i++)
        send_udp(f, false, &sm_subnet_v4.gateway, (uint16_t)(10000 + i), port, "x", 1);
    assert_true(atomic_load(&sm_user_net_counters(f->backend)->sockets) <= 8);
    assert_int_equal(atomic_load(&sm_user_net_counters(f->backend)->socket_limit), 192);
    send_udp(f, false, &sm_subnet_v4.gateway, 10001, port, "again", 5); /* has one */
    assert_int_equal(atomic_load(&sm_user_net_counters(f->backend)->socket_limit), 192);
    close(host);
    stop(f);
}

static void test_backlog_is_bounded(void **state)
{
    uint16_t port;
    int host = loopback_socket(SOCK_DGRAM, &port);
    uint8_t buf[1400] = {0};
    char text[64];
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    int64_t deadline = sm_deadline(10000);
    uint8_t frame[RX_SIZE];
    struct sm_frame parsed;

    (void)state;
    snprintf(text, sizeof(text), "layer all\nallow host-loopback:%u\n", port);
    struct fixture *f = start(text, 0);
    send_udp(f, false, &sm_subnet_v4.gateway, 4000, port, "x", 1);
    recvfrom(host, buf, sizeof(buf), 0, (struct sockaddr *)&from, &from_len);
    sendto(host, "first", 5, 0, (struct sockaddr *)&from, from_len);
    expect(f, SM_IP_UDP, frame, sizeof(frame), &parsed);
    /* The guest takes nothing more, the host goes on. */
    while (atomic_load(&sm_user_net_counters(f->backend)->backlog_limit) == 0) {
        if (sm_deadline_left(deadline) == 0)
            fail_msg("no limit was reached");
        for (int i = 0; i < 50; i++)
            sendto(host, buf, sizeof(buf), 0, (struct sockaddr *)&from, from_len);
    }
    for (int i = 0; i < 200; i++) /* what waited comes, in order and whole */
        assert_int_equal(receive(f, frame, sizeof(frame), 5000), 14 + 28 + 1400);
    close(host);
    stop(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_udp_to_host),
        cmocka_unit_test(test_tcp_to_host),
        cmocka_unit_test(test_loopback_is_closed),
        cmocka_unit_test(test_arp),
        cmocka_unit_test(test_ping_gateway),
        cmocka_unit_test(test_dns),
        cmocka_unit_test(test_dns_policy),
        cmocka_unit_test(test_dns_silence_is_bounded),
        cmocka_unit_test(test_socket_limit),
        cmocka_unit_test(test_backlog_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
