/*
 * A guest in front of the user-mode network: frames in at virtio-net, frames out, and a resolver of
 * the test's own behind it. For programs with cmocka included.
 */
#ifndef USER_NET_GUEST_H
#define USER_NET_GUEST_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_guest.h"
#include "net/frame.h"
#include "net/user_net.h"
#include "patience.h"
#include "util/bytes.h"
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
    uint8_t last_protocol;
    char last_name[64];
};

static inline void on_denied(void *arg, const struct sm_denial *d)
{
    struct fixture *f = arg;
    f->last = d->verdict;
    f->last_protocol = d->protocol;
    snprintf(f->last_name, sizeof(f->last_name), "%s", d->name ? d->name : "");
    atomic_fetch_add(&f->reports, 1);
}

static inline int loopback_socket(int type, uint16_t *port)
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

/* The guest's driver takes the card up, for the first time or after a reset. */
static inline void plug(struct fixture *f)
{
    fg_probe(&f->fg, f->dev, UINT64_MAX, f->q, 2, 64);
    for (int i = 0; i < RX_BUFFERS; i++)
        fg_send(&f->q[SM_NET_RX], 0, 0, fg_alloc(&f->fg, RX_SIZE), RX_SIZE);
}

static inline struct fixture *start(const char *policy_text, unsigned max_sockets)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct sm_policy policy = {0};
    struct sm_user_net_config config = {
        .policy = &policy, .denied = on_denied, .denied_arg = f, .max_sockets = max_sockets};
    assert_non_null(f);
    f->resolver = loopback_socket(SOCK_DGRAM, &f->resolver_port);
    strcpy(f->conf, "/tmp/sm-test-resolv-XXXXXX");
    int fd = mkstemp(f->conf);
    FILE *out = fdopen(fd, "w");
    assert_non_null(out);
    fprintf(out, "# test\nsearch x\nnameserver [127.0.0.1]:%u\n", f->resolver_port);
    fclose(out);
    config.resolv_conf = f->conf;
    assert_int_equal(sm_policy_parse(policy_text, strlen(policy_text), &policy, NULL), 0);
    fg_init(&f->fg);
    assert_int_equal(sm_loop_create(&f->loop, NULL), 0);
    f->env = (struct sm_virtio_env){.loop = f->loop, .memory = &f->fg.gm, .irq = fg_bell()};
    assert_int_equal(sm_user_net_create(f->loop, &config, &f->backend, NULL), 0);
    assert_int_equal(sm_virtio_net_create(&f->env, sm_user_net_mac, f->backend, &f->dev, NULL), 0);
    assert_int_equal(sm_loop_start(f->loop, "net-test", NULL), 0);
    f->tx = fg_alloc(&f->fg, 65536);
    plug(f);
    return f;
}

static inline void stop(struct fixture *f)
{
    sm_virtio_destroy(f->dev);
    sm_loop_destroy(f->loop);
    sm_bell_close(&f->env.irq);
    close(f->resolver);
    unlink(f->conf);
    fg_fini(&f->fg);
    free(f);
}

static inline void send_frame(struct fixture *f, const uint8_t *frame, size_t len)
{
    int64_t deadline = sm_deadline(PATIENCE_MS);
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
static inline size_t receive(struct fixture *f, uint8_t *frame, size_t room, int timeout_ms)
{
    int64_t deadline = sm_deadline(timeout_ms);
    uint32_t id;
    uint32_t len;
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
static inline size_t expect(
    struct fixture *f, uint8_t protocol, uint8_t *frame, size_t room, struct sm_frame *parsed)
{
    for (int i = 0; i < 20; i++) {
        size_t len = receive(f, frame, room, PATIENCE_MS);
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
            uint32_t sum = sm_inet_sum("\0\0\0\x20\0\0\0\x3a", 8, sm_inet_sum(reply + 22, 32, 0));
            uint16_t done = sm_inet_finish(sm_inet_sum(reply + 54, 32, sum));
            memcpy(reply + 56, &done, 2);
            send_frame(f, reply, sizeof(reply));
        }
    }
    fail_msg("no frame of protocol %u came", protocol);
    return 0;
}

static inline void send_udp(struct fixture *f, bool v6, const struct sm_ip *dst, uint16_t sport,
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

struct segment {
    bool v6;
    struct sm_ip dst;
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint8_t flags;
    uint16_t window;  /* 0: 65280 */
    const void *data; /* NULL: x */
    size_t len;
};

/* Sum of `len` bytes of TCP and their pseudo header; the IP header is at `l3`. */
static inline uint32_t tcp_sum(const uint8_t *l3, bool v6, size_t len)
{
    uint8_t tail[4] = {0, SM_IP_TCP};
    sm_store_be16(tail + 2, len);
    uint32_t sum = sm_inet_sum(l3 + (v6 ? 8 : 12), v6 ? 32 : 8, sm_inet_sum(tail, 4, 0));
    return sm_inet_sum(l3 + (v6 ? SM_IPV6_HEADER : SM_IPV4_HEADER), len, sum);
}

/* Enough TCP for a connection: SYN, data, FIN by hand. */
static inline size_t make_segment(uint8_t *frame, const struct segment *s)
{
    uint8_t *ip = frame + SM_ETH_HEADER;
    uint8_t *tcp = ip + (s->v6 ? SM_IPV6_HEADER : SM_IPV4_HEADER);
    const struct sm_ip *src = &(s->v6 ? &sm_subnet_v6 : &sm_subnet_v4)->guest;
    size_t len = 20 + s->len;
    memset(frame, 0, SM_ETH_HEADER + SM_IPV6_HEADER + 20);
    memcpy(frame, gateway_mac, 6);
    memcpy(frame + 6, sm_user_net_mac, 6);
    memcpy(frame + 12, s->v6 ? "\x86\xdd" : "\x08", 2);
    if (s->v6) {
        ip[0] = 0x60;
        sm_store_be16(ip + 4, len);
        ip[6] = SM_IP_TCP;
        ip[7] = 64;
        memcpy(ip + 8, src->b, 16);
        memcpy(ip + 24, s->dst.b, 16);
    } else {
        ip[0] = 0x45;
        sm_store_be16(ip + 2, SM_IPV4_HEADER + len);
        ip[8] = 64;
        ip[9] = SM_IP_TCP;
        memcpy(ip + 12, src->b + 12, 4);
        memcpy(ip + 16, s->dst.b + 12, 4);
        uint16_t sum = sm_inet_finish(sm_inet_sum(ip, SM_IPV4_HEADER, 0));
        memcpy(ip + 10, &sum, 2);
    }
    sm_store_be16(tcp, s->sport);
    sm_store_be16(tcp + 2, s->dport);
    sm_store_be32(tcp + 4, s->seq);
    sm_store_be32(tcp + 8, s->ack);
    tcp[12] = 0x50;
    tcp[13] = s->flags;
    sm_store_be16(tcp + 14, s->window ? s->window : 0xff00);
    if (s->data)
        memcpy(tcp + 20, s->data, s->len);
    else
        memset(tcp + 20, 'x', s->len);
    uint16_t sum = sm_inet_finish(tcp_sum(ip, s->v6, len));
    memcpy(tcp + SM_TCP_CHECKSUM, &sum, 2);
    return (size_t)(tcp - frame) + len;
}

static inline void send_segment(struct fixture *f, const struct segment *s)
{
    uint8_t frame[RX_SIZE];
    send_frame(f, frame, make_segment(frame, s));
}

static inline void send_tcp(struct fixture *f, const struct sm_ip *dst, uint16_t sport,
    uint16_t dport, uint32_t seq, uint32_t ack, uint8_t flags, const char *data)
{
    send_segment(f, &(struct segment){.dst = *dst,
                        .sport = sport,
                        .dport = dport,
                        .seq = seq,
                        .ack = ack,
                        .flags = flags,
                        .data = data,
                        .len = strlen(data)});
}

static inline void wait_sockets(struct fixture *f, unsigned want)
{
    int64_t deadline = sm_deadline(PATIENCE_MS);
    while (atomic_load(&sm_user_net_counters(f->backend)->sockets) != want) {
        if (sm_deadline_left(deadline) == 0)
            fail_msg("%u sockets are open, want %u",
                atomic_load(&sm_user_net_counters(f->backend)->sockets), want);
        usleep(1000);
    }
}

#endif
