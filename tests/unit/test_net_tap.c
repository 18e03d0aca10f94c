/*
 * The tap backend behind virtio-net, with a socket pair in the interface's place; the words of
 * --network tap; and, where it may be made, a real interface in a network namespace of the test's
 * own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/if_tun.h>

#include "fake_guest.h"
#include "net/frame.h"
#include "net/guest_net.h"
#include "net/resolv_conf.h"
#include "net/tap.h"

#define RX_BUFFERS 16
#define RX_SIZE    4096
#define MSS        1000

struct fixture {
    struct fg fg;
    struct sm_loop *loop;
    struct sm_virtio_env env;
    struct sm_net_backend *backend;
    struct sm_virtio_dev *dev;
    struct fg_queue q[2];
    uint64_t rx[RX_BUFFERS];
    unsigned offered;
    int wire; /* the host's kernel, played by the test */
    unsigned denials;
};

static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 1}, host_mac[6] = {2, 0, 0, 0, 0, 2};

static void on_denied(void *arg, const struct sm_denial *d)
{
    (void)d;
    ((struct fixture *)arg)->denials++;
}

static void offer(struct fixture *f)
{
    unsigned i = f->offered++ % RX_BUFFERS;
    if (!f->rx[i])
        f->rx[i] = fg_alloc(&f->fg, RX_SIZE);
    fg_send(&f->q[SM_NET_RX], 0, 0, f->rx[i], RX_SIZE);
}

/* The loop's thread does not run: the test is the loop's thread. */
static struct fixture *start(const char *policy_text, uint64_t features, unsigned buffers)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct sm_policy policy = {0};
    struct sm_tap_config config = {.denied = on_denied, .denied_arg = f};
    int size = 4096;
    assert_non_null(f);
    struct sm_ip link;
    assert_true(sm_ip_parse("fd00:1::", &link));
    int pair[2];
    assert_int_equal(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    f->wire = pair[1];
    if (policy_text) {
        assert_int_equal(sm_policy_parse(policy_text, strlen(policy_text), &policy, NULL), 0);
        config.policy = &policy;
        config.link = link;
        config.link_prefix = 64;
    }
    config.fd = pair[0];
    fg_init(&f->fg);
    assert_int_equal(sm_loop_create(&f->loop, NULL), 0);
    f->env = (struct sm_virtio_env){.loop = f->loop, .memory = &f->fg.gm, .irq = fg_bell()};
    assert_int_equal(sm_tap_create(f->loop, &config, &f->backend, NULL), 0);
    assert_int_equal(sm_virtio_net_create(&f->env, guest_mac, f->backend, &f->dev, NULL), 0);
    fg_probe(&f->fg, f->dev, features, f->q, 2, 64);
    for (unsigned i = 0; i < buffers; i++)
        offer(f);
    return f;
}

static void stop(struct fixture *f)
{
    sm_virtio_destroy(f->dev);
    sm_loop_destroy(f->loop);
    sm_bell_close(&f->env.irq);
    close(f->wire);
    fg_fini(&f->fg);
    free(f);
}

static void transmit(
    struct fixture *f, const struct virtio_net_hdr_v1 *hdr, const void *frame, size_t len)
{
    uint64_t gpa = fg_alloc(&f->fg, sizeof(*hdr) + len);
    memcpy(fg_ptr(&f->fg, gpa), hdr, sizeof(*hdr));
    memcpy(fg_ptr(&f->fg, gpa) + sizeof(*hdr), frame, len);
    fg_send(&f->q[SM_NET_TX], gpa, (uint32_t)(sizeof(*hdr) + len), 0, 0);
    f->dev->ops->notify(f->dev, SM_NET_TX);
}

static ssize_t on_wire(struct fixture *f, void *to, size_t size)
{
    return recv(f->wire, to, size, MSG_DONTWAIT);
}

static void from_wire(
    struct fixture *f, const struct virtio_net_hdr_v1 *hdr, const void *frame, size_t len)
{
    uint8_t packet[8192];
    memcpy(packet, hdr, sizeof(*hdr));
    memcpy(packet + sizeof(*hdr), frame, len);
    assert_int_equal(send(f->wire, packet, sizeof(*hdr) + len, 0), sizeof(*hdr) + len);
}

/* What the guest has received; 0: nothing. The buffer goes back to the device. */
static uint32_t received(struct fixture *f, uint8_t to[RX_SIZE])
{
    uint32_t id;
    uint32_t len;
    if (!fg_used(&f->q[SM_NET_RX], &id, &len))
        return 0;
    memcpy(to, fg_ptr(&f->fg, f->rx[id % RX_BUFFERS]), len);
    offer(f);
    return len;
}

static const struct virtio_net_hdr_v1 plain;

static void headers_and_frames_pass_as_they_are(void **state)
{
    (void)state;
    struct fixture *f = start(NULL, UINT64_MAX, RX_BUFFERS);
    const struct virtio_net_hdr_v1 tso = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN,
        .hdr_len = 54,
        .gso_size = MSS,
        .csum_start = 34,
        .csum_offset = 16};
    uint8_t frame[3000];
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7);
    transmit(f, &tso, frame, sizeof(frame));
    struct virtio_net_hdr_v1 hdr;
    uint8_t packet[8192];
    assert_int_equal(on_wire(f, packet, sizeof(packet)), sizeof(hdr) + sizeof(frame));
    assert_memory_equal(packet, &tso, sizeof(tso));
    assert_memory_equal(packet + sizeof(tso), frame, sizeof(frame));

    from_wire(f, &tso, frame, sizeof(frame));
    sm_loop_turn(f->loop);
    assert_int_equal(received(f, packet), sizeof(hdr) + sizeof(frame));
    memcpy(&hdr, packet, sizeof(hdr));
    assert_int_equal(hdr.num_buffers, 1);
    hdr.num_buffers = 0;
    assert_memory_equal(&hdr, &tso, sizeof(tso));
    assert_memory_equal(packet + sizeof(tso), frame, sizeof(frame));
    stop(f);
}

/* Of a driver that takes no offload, frames with one are from before. */
static void what_the_driver_cannot_take_is_dropped(void **state)
{
    (void)state;
    static const struct virtio_net_hdr_v1 bad[] = {
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16},
        {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = MSS},
        {.gso_type = VIRTIO_NET_HDR_GSO_TCPV6, .gso_size = MSS},
        {.gso_type = VIRTIO_NET_HDR_GSO_UDP, .gso_size = MSS},
        {.gso_type = VIRTIO_NET_HDR_GSO_ECN},
    };
    const struct virtio_net_hdr_v1 valid = {.flags = VIRTIO_NET_HDR_F_DATA_VALID};
    struct fixture *f = start(NULL, SM_VIRTIO_F_VERSION_1, RX_BUFFERS);
    uint8_t frame[100] = {1};
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        from_wire(f, &bad[i], frame, sizeof(frame));
    from_wire(f, &valid, frame, sizeof(frame));
    sm_loop_turn(f->loop);
    assert_int_equal(sm_tap_counters(f->backend)->stale, SM_ARRAY_LEN(bad));
    uint8_t packet[RX_SIZE];
    assert_int_equal(received(f, packet), sizeof(plain) + sizeof(frame));
    assert_int_equal(packet[0], 0); /* "checksum is valid" was not negotiated either */
    assert_int_equal(received(f, packet), 0);
    stop(f);
}

static void a_guest_without_buffers_gets_everything_later_in_order(void **state)
{
    (void)state;
    struct fixture *f = start(NULL, UINT64_MAX, 1);
    uint8_t frame[100] = {0};
    for (uint8_t i = 0; i < 5; i++) {
        frame[0] = i;
        from_wire(f, &plain, frame, sizeof(frame));
    }
    for (int i = 0; i < 3; i++)
        sm_loop_turn(f->loop); /* it is not asked again and again either */
    uint8_t packet[RX_SIZE];
    for (uint8_t i = 0; i < 5; i++) {
        assert_int_equal(received(f, packet), sizeof(plain) + sizeof(frame));
        assert_int_equal(packet[sizeof(plain)], i);
        f->dev->ops->notify(f->dev, SM_NET_RX);
        sm_loop_turn(f->loop);
    }
    assert_int_equal(received(f, packet), 0);
    stop(f);
}

static void a_host_without_room_gets_everything_later_in_order(void **state)
{
    enum { FRAMES = 40 };
    struct fixture *f = start(NULL, UINT64_MAX, 0);
    uint8_t frame[1000] = {0}, packet[2000];
    unsigned returned = 0, seen = 0;

    (void)state;
    for (uint8_t i = 0; i < FRAMES; i++) {
        frame[0] = i;
        transmit(f, &plain, frame, sizeof(frame));
    }
    while (fg_used(&f->q[SM_NET_TX], NULL, NULL))
        returned++;
    assert_true(returned > 0 && returned < FRAMES); /* the others stay in the ring */
    for (int rounds = 0; seen < FRAMES && rounds < 10 * FRAMES; rounds++) {
        while (on_wire(f, packet, sizeof(packet)) > 0)
            assert_int_equal(packet[sizeof(plain)], seen++);
        sm_loop_turn(f->loop);
    }
    assert_int_equal(seen, FRAMES);
    while (fg_used(&f->q[SM_NET_TX], NULL, NULL))
        returned++;
    assert_int_equal(returned, FRAMES);
    stop(f);
}

static void a_reset_forgets_the_frame_that_waits(void **state)
{
    (void)state;
    struct fixture *f = start(NULL, UINT64_MAX, 0);
    uint8_t frame[100] = {1};
    from_wire(f, &plain, frame, sizeof(frame));
    sm_loop_turn(f->loop);
    f->offered = 0;
    fg_probe(&f->fg, f->dev, UINT64_MAX, f->q, 2, 64);
    offer(f);
    f->dev->ops->notify(f->dev, SM_NET_RX);
    sm_loop_turn(f->loop);
    uint8_t packet[RX_SIZE];
    assert_int_equal(received(f, packet), 0);
    frame[0] = 2;
    from_wire(f, &plain, frame, sizeof(frame));
    sm_loop_turn(f->loop);
    assert_int_equal(received(f, packet), sizeof(plain) + sizeof(frame));
    assert_int_equal(packet[sizeof(plain)], 2);
    stop(f);
}

static void an_interface_that_goes_away_takes_frames_and_gives_none(void **state)
{
    (void)state;
    struct fixture *f = start(NULL, UINT64_MAX, 4);
    uint8_t frame[100] = {1};
    close(f->wire);
    f->wire = -1;
    sm_loop_turn(f->loop);
    signal(SIGPIPE, SIG_IGN); /* of the socket that stands for the interface */
    transmit(f, &plain, frame, sizeof(frame));
    assert_int_equal(sm_tap_counters(f->backend)->refused, 1);
    assert_true(fg_used(&f->q[SM_NET_TX], NULL, NULL));
    stop(f);
}

/* ---- policy -------------------------------------------------------------------------------- */

static size_t make_udp(uint8_t *to, size_t room, const char *src, const char *dst)
{
    struct sm_udp_packet p = {.dst_mac = host_mac,
        .src_mac = guest_mac,
        .sport = 1000,
        .dport = 80,
        .payload = "0123456789012345",
        .len = 16};
    assert_true(sm_ip_parse(src, &p.src) && sm_ip_parse(dst, &p.dst));
    return sm_frame_make_udp(to, room, &p);
}

static void every_frame_is_judged(void **state)
{
    (void)state;
    struct fixture *f = start("layer none\nallow 192.0.2.0/24", UINT64_MAX, RX_BUFFERS);
    uint8_t frame[200];
    size_t len = make_udp(frame, sizeof(frame), "10.9.9.9", "192.0.2.7");
    transmit(f, &plain, frame, len); /* from whatever address */
    uint8_t packet[RX_SIZE];
    assert_int_equal(on_wire(f, packet, sizeof(packet)), sizeof(plain) + len);
    assert_memory_equal(packet + sizeof(plain), frame, len);

    len = make_udp(frame, sizeof(frame), "10.0.2.15", "198.51.100.7");
    transmit(f, &plain, frame, len);
    assert_int_equal(on_wire(f, packet, sizeof(packet)), -1);
    assert_int_equal(f->denials, 1);
    assert_true(received(f, packet) > sizeof(plain) + 42); /* ICMP: prohibited */
    assert_int_equal(packet[sizeof(plain) + 34], 3);
    assert_int_equal(packet[sizeof(plain) + 35], 13);

    frame[12] = 0x81; /* VLAN */
    frame[13] = 0x00;
    transmit(f, &plain, frame, len);
    assert_int_equal(on_wire(f, packet, sizeof(packet)), -1);

    /* A segment of a connection that nobody knows is judged as any. */
    len = make_udp(frame, sizeof(frame), "10.0.2.15", "198.51.100.7");
    frame[23] = SM_IP_TCP;
    frame[34 + 12] = 0x50;
    frame[34 + 13] = SM_TCP_ACK;
    transmit(f, &plain, frame, len);
    assert_int_equal(on_wire(f, packet, sizeof(packet)), -1);
    assert_int_equal(f->denials, 2);
    stop(f);
}

/* The kernel would write the checksum over what was judged, such as the address. */
static void a_checksum_elsewhere_is_no_way_around(void **state)
{
    (void)state;
    static const uint16_t places[][2] = {{14, 16}, {34, 4}, {26, 14}, {34, 16}, {30, 0}, {36, 4}};
    struct fixture *f = start("layer none\nallow 192.0.2.0/24", UINT64_MAX, RX_BUFFERS);
    struct virtio_net_hdr_v1 hdr = {
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};
    uint8_t frame[200];
    size_t len = make_udp(frame, sizeof(frame), "10.0.2.15", "192.0.2.7");
    transmit(f, &hdr, frame, len);
    uint8_t packet[RX_SIZE];
    assert_int_equal(on_wire(f, packet, sizeof(packet)), sizeof(plain) + len);
    for (size_t i = 0; i < SM_ARRAY_LEN(places); i++) {
        hdr.csum_start = places[i][0];
        hdr.csum_offset = places[i][1];
        transmit(f, &hdr, frame, len);
        assert_int_equal(on_wire(f, packet, sizeof(packet)), -1);
    }
    frame[20] = 0x20; /* more fragments */
    hdr.csum_start = 34;
    hdr.csum_offset = 6;
    transmit(f, &hdr, frame, len);
    assert_int_equal(on_wire(f, packet, sizeof(packet)), -1);
    stop(f);
}

static void neighbours_are_asked_for_and_routers_forward_no_such_thing(void **state)
{
    (void)state;
    static const struct {
        const char *dst;
        bool passes;
    } cases[] = {{"ff02::1:ff00:1", true}, {"fe80::1", true}, {"fd00:1::7", true},
        {"2001:db8::1", false}, {"ff05::1", false}, {"fd00:2::1", false}};
    struct fixture *f = start("layer none", UINT64_MAX, RX_BUFFERS);
    uint8_t frame[200];
    uint8_t packet[RX_SIZE];
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        size_t len = make_udp(frame, sizeof(frame), "fd00:1::15", cases[i].dst);
        frame[20] = SM_IP_ICMPV6;
        frame[54] = SM_ICMPV6_NS;
        transmit(f, &plain, frame, len);
        assert_int_equal(on_wire(f, packet, sizeof(packet)) > 0, cases[i].passes);
    }
    stop(f);
}

/* ---- words --------------------------------------------------------------------------------- */

static void words_are_read(void **state)
{
    (void)state;
    struct sm_tap_spec spec;
    assert_int_equal(sm_tap_spec_parse("tap0", &spec, NULL), 0);
    struct sm_tap_spec other;
    assert_int_equal(sm_tap_spec_parse("tap0", &other, NULL), 0);
    assert_string_equal(spec.ifname, "tap0");
    assert_true(spec.net.v4.given && spec.net.v4.routed && !spec.net.v6.given);
    struct sm_ip ip;
    assert_true(sm_ip_parse("10.0.2.15", &ip) && sm_ip_equal(&ip, &spec.net.v4.addr));
    assert_int_equal(spec.net.v4.prefix, 24);
    assert_int_equal(spec.net.mac[0] & 3, 2); /* one card, locally administered */
    assert_memory_not_equal(spec.net.mac, other.net.mac, 6);

    assert_int_equal(
        sm_tap_spec_parse("sm-a.1,ip=10.1.2.3/16,gw=10.1.0.1,ip6=fd00::3/64,gw6=fd00::1,"
                          "mac=06:00:aA:00:00:09,dns=10.1.0.1,dns=fd00::1",
            &spec, NULL),
        0);
    assert_int_equal(spec.net.v4.prefix, 16);
    assert_int_equal(spec.net.v6.prefix, 64);
    assert_memory_equal(spec.net.mac, "\6\0\xaa\0\0\x09", 6);
    char text[SM_RESOLV_TEXT_MAX + 1];
    sm_guest_net_resolv_text(&spec.net, &(struct sm_resolv_conf){0}, text);
    assert_string_equal(text, "nameserver 10.1.0.1\nnameserver fd00::1\noptions edns0\n");

    assert_int_equal(sm_tap_spec_parse("t,ip6=fd00::3/64", &spec, NULL), 0);
    assert_false(spec.net.v4.given || spec.net.v6.routed);
    assert_int_equal(sm_tap_spec_parse("t,ip=10.1.2.3/16", &spec, NULL), 0);
    assert_false(spec.net.v4.routed);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", ",ip=10.1.2.3/16", "sixteen-letters-", "a/b", "a b",
        "tap%d", "..", ".", "a:b", "t,", "t,ip", "t,ip=", "t,ip=10.1.2.3", "t,ip=10.1.2.3/33",
        "t,ip=10.1.2.3/0", "t,ip=10.1.2.3/1x", "t,ip=127.0.0.1/8", "t,ip=224.0.0.1/8",
        "t,ip=0.0.0.0/8", "t,ip=fd00::1/64", "t,ip6=10.1.2.3/16", "t,ip6=::1/64",
        "t,ip6=::ffff:10.1.2.3/64", "t,ip6=ff02::1/64", "t,ip6=fd00::1/129",
        "t,ip=10.1.2.3/16,ip=10.1.2.4/16", "t,gw=10.1.2.3", "t,ip=10.1.2.3/24,gw=10.1.3.1",
        "t,ip=10.1.2.3/24,gw=10.1.2.3", "t,ip=10.1.2.3/24,gw6=fd00::1",
        "t,mac=", "t,mac=01:00:00:00:00:01", "t,mac=00:00:00:00:00:00", "t,mac=02:00:00:00:00:0",
        "t,mac=02:00:00:00:00:001", "t,mac=02:00:00:00:00: 1", "t,mac=02:00:00:00:00:+1",
        "t,mac=02-00-00-00-00-01", "t,dns=x", "t,dns=127.0.0.1",
        "t,dns=10.0.0.1,dns=10.0.0.2,dns=10.0.0.3,dns=10.0.0.4", "t,mtu=1500"};
    struct sm_tap_spec spec;
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        if (sm_tap_spec_parse(bad[i], &spec, NULL) != -SM_EINVAL)
            fail_msg("'%s' was not refused", bad[i]);
    char text[2000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(sm_tap_spec_parse(text, &spec, NULL), -SM_EINVAL);
}

/* What glibc makes of these on the host is what a guest gets, as far as it can reach it. */
static void name_servers_domains_and_options_of_the_host(void **state)
{
    (void)state;
    static const struct {
        const char *conf, *text;
    } cases[] = {
        {"nameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n",
            "nameserver 192.0.2.1\nnameserver 2001:db8::1\noptions edns0\n"},
        {"nameserver 127.0.0.53\nnameserver fe80::1%lo\n", "nameserver 10.0.2.2\noptions edns0\n"},
        {"nameserver fe80::1%eth0\nnameserver 192.0.2.1\n",
            "nameserver 192.0.2.1\noptions edns0\n"},
        {"", "nameserver 10.0.2.2\noptions edns0\n"},
        {"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"
         "options ndots:2\nsearch corp.test",
            "search corp.test\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"
            "options edns0 ndots:2\n"},
        {"domain a.test b.test\nnameserver 192.0.2.1\n",
            "search a.test\nnameserver 192.0.2.1\noptions edns0\n"},
        {"search a.test\t b.test \r\ndomain c.test\nsearch d.test e.test\nnameserver 192.0.2.1\n",
            "search d.test e.test\nnameserver 192.0.2.1\noptions edns0\n"},
        {"search .\nnameserver 192.0.2.1\noptions use-vc edns0 trust-ad\n#options x\noptions rotate\n",
            "nameserver 192.0.2.1\noptions edns0 use-vc trust-ad rotate\n"},
        {"search a\x1b[2J.test b.test\nnameserver 192.0.2.1\noptions\n",
            "search b.test\nnameserver 192.0.2.1\noptions edns0\n"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        char *conf = strdup(cases[i].conf);
        struct sm_resolv_conf host = {.n = 0};
        struct sm_tap_spec spec;
        char text[SM_RESOLV_TEXT_MAX + 1];
        sm_resolv_conf_parse(&host, conf);
        free(conf);
        assert_int_equal(sm_tap_spec_parse("t", &spec, NULL), 0);
        sm_guest_net_resolvers(&spec.net, &host);
        sm_guest_net_resolv_text(&spec.net, &host, text);
        assert_string_equal(text, cases[i].text);
    }
}

/* The text has room for all that was taken of the file. */
static void what_does_not_fit_is_left_out(void **state)
{
    (void)state;
    char conf[8192] = "nameserver 2001:db8:1111:2222:3333:4444:5555:6666\n"
                      "nameserver 2001:db8:1111:2222:3333:4444:5555:6666\n"
                      "nameserver 2001:db8:1111:2222:3333:4444:5555:6666\n";
    for (int line = 0; line < 2; line++) {
        strcat(conf, line ? "\noptions" : "search");
        for (int i = 0; i < 40; i++)
            sprintf(conf + strlen(conf), " word%02d.0123456789", i);
    }
    strcat(conf, " x\n");
    struct sm_resolv_conf host = {.n = 0};
    struct sm_guest_net net = {.n_dns = 0};
    char text[SM_RESOLV_TEXT_MAX + 1];
    sm_resolv_conf_parse(&host, conf);
    sm_guest_net_resolvers(&net, &host);
    sm_guest_net_resolv_text(&net, &host, text);
    assert_int_equal(net.n_dns, 3);
    assert_in_range(strlen(host.search), SM_RESOLV_WORDS - 20, SM_RESOLV_WORDS);
    assert_non_null(strstr(text, " x\n")); /* a short one fits still */
    assert_null(strstr(text, "word39"));
}

/* ---- a real interface ---------------------------------------------------------------------- */

static int make_tap(const char *name, int flags)
{
    struct ifreq req = {.ifr_flags = (short)flags};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    strcpy(req.ifr_name, name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &req) != 0)
        _exit(10);
    return fd;
}

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what))                                                                               \
            _exit(__LINE__ % 200 + 20);                                                            \
    } while (0)

/* In a process of its own, which ends with the number of what failed. */
static void use_interfaces(void)
{
    sm_error err;
    uint16_t mtu = 0;
    int fd = -1;
    int again = -1;
    int value = 0;
    CHECK(sm_tap_open("sm0", &fd, &mtu, &err) == 0 && mtu == 1500); /* made */
    CHECK(ioctl(fd, TUNGETVNETHDRSZ, &value) == 0 && value == SM_NET_HDR);
    CHECK(sm_tap_open("sm0", &again, &mtu, &err) == -SM_EBUSY && again == -1);
    close(fd);
    int tap = make_tap("sm1", IFF_TAP | IFF_NO_PI);
    CHECK(ioctl(tap, TUNSETPERSIST, 1) == 0 && ioctl(tap, TUNSETOWNER, 12345) == 0);
    close(tap);
    CHECK(sm_tap_open("sm1", &fd, &mtu, &err) == 0);
    close(fd);
    CHECK(sm_tap_open("lo", &fd, &mtu, &err) == -SM_EINVAL &&
          strstr(err.message, "no tap interface"));
    tap = make_tap("sm2", IFF_TUN | IFF_NO_PI);
    CHECK(sm_tap_open("sm2", &fd, &mtu, &err) == -SM_EINVAL);
    CHECK(setresuid(54321, 54321, 54321) == 0);
    if (access("/dev/net/tun", R_OK | W_OK) == 0) {
        CHECK(sm_tap_open("sm1", &fd, &mtu, &err) == -SM_EPERM && strstr(err.message, "owner"));
        CHECK(sm_tap_open("sm3", &fd, &mtu, &err) == -SM_ENOTFOUND &&
              strstr(err.message, "no interface"));
    } else {
        CHECK(sm_tap_open("sm1", &fd, &mtu, &err) == -SM_EPERM);
    }
    _exit(0);
}

static void interfaces_and_what_is_in_the_way(void **state)
{
    (void)state;
    if (access("/dev/net/tun", R_OK | W_OK) != 0)
        skip();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (unshare(CLONE_NEWNET) != 0)
            _exit(11);
        use_interfaces();
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 10 || WEXITSTATUS(status) == 11))
        skip(); /* not permitted */
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_and_frames_pass_as_they_are),
        cmocka_unit_test(what_the_driver_cannot_take_is_dropped),
        cmocka_unit_test(a_guest_without_buffers_gets_everything_later_in_order),
        cmocka_unit_test(a_host_without_room_gets_everything_later_in_order),
        cmocka_unit_test(a_reset_forgets_the_frame_that_waits),
        cmocka_unit_test(an_interface_that_goes_away_takes_frames_and_gives_none),
        cmocka_unit_test(every_frame_is_judged),
        cmocka_unit_test(a_checksum_elsewhere_is_no_way_around),
        cmocka_unit_test(neighbours_are_asked_for_and_routers_forward_no_such_thing),
        cmocka_unit_test(words_are_read),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(name_servers_domains_and_options_of_the_host),
        cmocka_unit_test(what_does_not_fit_is_left_out),
        cmocka_unit_test(interfaces_and_what_is_in_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
