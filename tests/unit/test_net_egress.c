/* Frames against the policy: what is parsed, passed, rejected and dropped before libslirp sees
 * it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net/egress.h"
#include "util/bytes.h"
#include "util/inet_checksum.h"

static const uint8_t mac_a[6] = {2, 0, 0, 0, 0, 1}, mac_b[6] = {2, 0, 0, 0, 0, 2};

struct packet {
    uint8_t b[2048];
    size_t len;
};

static struct sm_ip ip(const char *text)
{
    struct sm_ip out;
    if (!sm_ip_parse(text, &out))
        fail_msg("%s does not parse", text);
    return out;
}

static struct packet udp(const char *dst, unsigned port)
{
    struct sm_ip to = ip(dst);
    bool v4 = sm_ip_is_v4(&to) && !strchr(dst, ':');
    struct sm_udp_packet p = {.dst_mac = mac_b,
        .src_mac = mac_a,
        .src = v4 ? sm_subnet_v4.guest : sm_subnet_v6.guest,
        .dst = to,
        .sport = 40000,
        .dport = (uint16_t)port,
        .payload = "hello",
        .len = 5};
    struct packet out = {.len = 0};
    out.len = sm_frame_make_udp(out.b, sizeof(out.b), &p);
    assert_true(out.len > 0);
    return out;
}

/* TCP from the UDP frame: a header of 20 bytes takes the place of the UDP one. */
static struct packet tcp(const char *dst, unsigned port, unsigned flags)
{
    struct packet p = udp(dst, port);
    bool v4 = p.b[12] == 8;
    size_t l4 = 14 + (v4 ? 20 : 40);
    p.b[v4 ? 23 : 20] = SM_IP_TCP;
    memset(p.b + l4 + 4, 0, 40);
    p.b[l4 + 12] = 0x50;
    p.b[l4 + 13] = (uint8_t)flags;
    p.len = l4 + 20;
    if (v4)
        p.b[17] = 40;
    else
        p.b[19] = 20;
    return p;
}

static struct packet echo(const char *dst)
{
    struct packet p = udp(dst, 0);
    bool v4 = p.b[12] == 8;
    p.b[v4 ? 23 : 20] = v4 ? SM_IP_ICMP : SM_IP_ICMPV6;
    p.b[14 + (v4 ? 20 : 40)] = v4 ? SM_ICMP_ECHO : SM_ICMPV6_ECHO;
    return p;
}

static struct sm_egress egress_of(const char *text)
{
    struct sm_policy policy;
    if (sm_policy_parse(text, strlen(text), &policy, NULL))
        fail_msg("policy");
    struct sm_egress e;
    sm_egress_init(&e, &policy, true, NULL, NULL);
    return e;
}

static enum sm_egress_action judge(struct sm_egress *e, struct packet p)
{
    struct sm_frame f;
    return sm_egress_judge(e, p.b, p.len, 1000, &f);
}

static void test_transports(void **state)
{
    (void)state;
    struct sm_egress e = egress_of("layer public\nallow 10.9.0.0/16:80\n");
    assert_int_equal(judge(&e, udp("8.8.8.8", 9)), SM_EGRESS_PASS);
    assert_int_equal(judge(&e, udp("2600::1", 9)), SM_EGRESS_PASS);
    assert_int_equal(judge(&e, udp("192.168.0.1", 9)), SM_EGRESS_REJECT);
    assert_int_equal(judge(&e, udp("fd00::1", 9)), SM_EGRESS_REJECT);
    assert_int_equal(judge(&e, tcp("8.8.8.8", 80, SM_TCP_SYN)), SM_EGRESS_PASS);
    assert_int_equal(judge(&e, tcp("10.9.0.1", 80, SM_TCP_SYN)), SM_EGRESS_PASS);
    assert_int_equal(judge(&e, tcp("10.9.0.1", 81, SM_TCP_SYN)), SM_EGRESS_REJECT);
    assert_int_equal(judge(&e, tcp("10.9.0.1", 81, SM_TCP_SYN | SM_TCP_FIN)), SM_EGRESS_REJECT);
    assert_int_equal(judge(&e, tcp("10.9.0.1", 81, 0x10)), SM_EGRESS_PASS); /* no connection */
    e.user = false;
    assert_int_equal(judge(&e, tcp("10.9.0.1", 81, 0x10)), SM_EGRESS_REJECT);
    e.user = true;
    assert_int_equal(judge(&e, tcp("64:ff9b::a00:1", 80, SM_TCP_SYN)), SM_EGRESS_REJECT);
    assert_int_equal(judge(&e, echo("8.8.8.8")), SM_EGRESS_PASS);
    assert_int_equal(judge(&e, echo("10.9.0.1")), SM_EGRESS_REJECT);
    assert_int_equal(judge(&e, echo("2600::1")), SM_EGRESS_PASS);
    assert_int_equal(judge(&e, echo("fd00::1")), SM_EGRESS_REJECT);
    assert_int_equal(e.counters.denied[SM_VERDICT_PRIVATE], 8);
    sm_egress_clear(&e);
}

/* An IPv6 packet to a v4-mapped address: frames are built by hand, since the builder writes
 * IPv4. */
static void test_mapped_on_the_wire(void **state)
{
    (void)state;
    struct sm_egress e = egress_of("layer all\ndeny 8.8.8.8\n");
    struct packet p = udp("2600::1", 80);
    struct sm_ip to = ip("::ffff:127.0.0.1");
    memcpy(p.b + 14 + 24, to.b, 16);
    assert_int_equal(judge(&e, p), SM_EGRESS_REJECT);
    to = ip("::ffff:8.8.8.8");
    memcpy(p.b + 14 + 24, to.b, 16);
    assert_int_equal(judge(&e, p), SM_EGRESS_REJECT);
    sm_egress_clear(&e);
}

static void test_loopback_never(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "layer all\n", "layer all\nallow host-loopback\n"};
    static const char *const hosts[] = {"127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "::1",
        "::", "64:ff9b::7f00:1", "2002:7f00:1::", "::7f00:1"};
    for (size_t t = 0; t < SM_ARRAY_LEN(texts); t++) {
        struct sm_egress e = egress_of(texts[t]);
        for (size_t i = 0; i < SM_ARRAY_LEN(hosts); i++) {
            assert_int_equal(judge(&e, tcp(hosts[i], 80, SM_TCP_SYN)), SM_EGRESS_REJECT);
            assert_int_equal(judge(&e, udp(hosts[i], 80)), SM_EGRESS_REJECT);
            assert_int_equal(judge(&e, echo(hosts[i])), SM_EGRESS_REJECT);
        }
        sm_egress_clear(&e);
    }
}

static void test_subnet(void **state)
{
    (void)state;
    struct sm_egress closed = egress_of("layer all\n");
    struct sm_egress open = egress_of("layer all\nallow host-loopback:80\n");
    static const char *const gateways[] = {"10.0.2.2", "fd73:6d6e:6574::2"};
    static const char *const servers[] = {"10.0.2.3", "fd73:6d6e:6574::3"};
    static const char *const others[] = {
        "10.0.2.4", "10.0.2.15", "10.0.2.255", "10.0.2.0", "fd73:6d6e:6574::4"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(judge(&closed, tcp(gateways[i], 80, SM_TCP_SYN)), SM_EGRESS_REJECT);
        assert_int_equal(judge(&open, tcp(gateways[i], 80, SM_TCP_SYN)), SM_EGRESS_PASS);
        assert_int_equal(judge(&open, tcp(gateways[i], 81, SM_TCP_SYN)), SM_EGRESS_REJECT);
        assert_int_equal(judge(&closed, echo(gateways[i])), SM_EGRESS_PASS);
        assert_int_equal(judge(&closed, udp(servers[i], 53)), SM_EGRESS_DNS);
        assert_int_equal(judge(&closed, tcp(servers[i], 53, SM_TCP_SYN)), SM_EGRESS_DNS);
        assert_int_equal(judge(&closed, tcp(servers[i], 53, SM_TCP_ACK)), SM_EGRESS_DNS);
        assert_int_equal(judge(&open, udp(servers[i], 54)), SM_EGRESS_REJECT);
        assert_int_equal(judge(&open, tcp(servers[i], 80, SM_TCP_SYN)), SM_EGRESS_REJECT);
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(others); i++)
        assert_int_equal(judge(&open, tcp(others[i], 80, SM_TCP_SYN)), SM_EGRESS_DROP);
    assert_int_equal(judge(&open, udp("255.255.255.255", 80)), SM_EGRESS_DROP);
    assert_int_equal(judge(&open, udp("224.0.0.251", 5353)), SM_EGRESS_DROP);
    assert_int_equal(judge(&open, udp("ff02::fb", 5353)), SM_EGRESS_DROP);
    assert_int_equal(judge(&open, udp("fe80::2", 80)), SM_EGRESS_DROP);
    struct packet p = udp("8.8.8.8", 80); /* somebody else's source address */
    p.b[29]++;
    assert_int_equal(judge(&open, p), SM_EGRESS_DROP);
    sm_egress_clear(&closed);
    sm_egress_clear(&open);
}

static void test_strict_parsing(void **state)
{
    (void)state;
    struct sm_egress e = egress_of("");
    struct packet p = udp("8.8.8.8", 80);
    for (size_t n = 0; n < p.len; n++) {
        struct packet cut = p;
        cut.len = n;
        assert_int_equal(judge(&e, cut), SM_EGRESS_DROP);
    }
    p.b[12] = 0x81; /* VLAN */
    assert_int_equal(judge(&e, p), SM_EGRESS_DROP);
    p = udp("8.8.8.8", 80);
    p.b[14] = 0x46; /* IPv4 options */
    assert_int_equal(judge(&e, p), SM_EGRESS_DROP);
    p = udp("8.8.8.8", 80);
    p.b[39]++; /* UDP longer than IP says */
    assert_int_equal(judge(&e, p), SM_EGRESS_DROP);
    p = udp("2600::1", 80);
    p.b[20] = 0; /* hop-by-hop options */
    assert_int_equal(judge(&e, p), SM_EGRESS_DROP);
    p.b[20] = 44; /* IPv6 fragment */
    assert_int_equal(judge(&e, p), SM_EGRESS_DROP);
    p = udp("8.8.8.8", 80);
    p.b[23] = 47; /* GRE */
    assert_int_equal(judge(&e, p), SM_EGRESS_DROP);
    p = tcp("8.8.8.8", 80, SM_TCP_SYN);
    p.b[14 + 20 + 12] = 0x60; /* header longer than the segment */
    assert_int_equal(judge(&e, p), SM_EGRESS_DROP);
    p = tcp("8.8.8.8", 80, SM_TCP_SYN);
    p.b[20] = 0x20; /* TCP in fragments: flags may come later */
    assert_int_equal(judge(&e, p), SM_EGRESS_DROP);
    p = tcp("8.8.8.8", 80, SM_TCP_SYN);
    p.b[21] = 1;
    assert_int_equal(judge(&e, p), SM_EGRESS_DROP);
    p = echo("8.8.8.8");
    p.b[34] = 5; /* ICMP redirect */
    assert_int_equal(judge(&e, p), SM_EGRESS_DROP);
    sm_egress_clear(&e);
}

/* In the user-mode network whole datagrams are judged (reassembly.h); on a tap each fragment. */
static void test_fragments(void **state)
{
    (void)state;
    struct sm_egress e = egress_of("layer public\n");
    struct packet p = udp("8.8.8.8", 80);
    p.b[20] = 0x20;
    assert_int_equal(judge(&e, p), SM_EGRESS_DROP);
    e.user = false;
    assert_int_equal(judge(&e, p), SM_EGRESS_PASS);
    p = udp("10.0.0.1", 80);
    p.b[20] = 0x20;
    assert_int_equal(judge(&e, p), SM_EGRESS_REJECT); /* the first has the ports */
    p.b[21] = 1;
    assert_int_equal(judge(&e, p), SM_EGRESS_REJECT);
    sm_egress_clear(&e);
}

/* A neighbour solicitation or advertisement is for neighbours. */
static void test_neighbour_discovery(void **state)
{
    (void)state;
    static const char *const near[] = {"fd73:6d6e:6574::2", "fe80::2", "ff02::1:ff00:2"};
    static const char *const far[] = {"::1", "2600::1", "fd00::1", "::ffff:127.0.0.1", "ff05::2"};
    struct sm_egress e = egress_of("layer all\n");
    for (size_t i = 0; i < SM_ARRAY_LEN(near) + SM_ARRAY_LEN(far); i++) {
        bool is_near = i < SM_ARRAY_LEN(near);
        struct packet p = echo("2600::1");
        struct sm_ip to = ip(is_near ? near[i] : far[i - SM_ARRAY_LEN(near)]);
        memcpy(p.b + 14 + 24, to.b, 16);
        for (uint8_t type = SM_ICMPV6_NS; type <= SM_ICMPV6_NA; type++) {
            p.b[54] = type;
            if (is_near)
                assert_int_equal(judge(&e, p), SM_EGRESS_PASS);
            else
                assert_int_not_equal(judge(&e, p), SM_EGRESS_PASS);
        }
    }
    sm_egress_clear(&e);
}

static void test_learned_names(void **state)
{
    (void)state;
    struct sm_egress e = egress_of("layer none\nallow *.example.com:443\n");
    struct sm_name_set set = {0};
    struct sm_ip to = ip("93.184.216.34");
    struct packet syn = tcp("93.184.216.34", 443, SM_TCP_SYN);
    struct packet quic = udp("93.184.216.34", 443);
    assert_int_equal(judge(&e, syn), SM_EGRESS_REJECT);
    assert_true(sm_policy_match_names(&e.policy, "www.example.com", &set));
    assert_true(sm_names_learn(&e.names, &to, &set, 60, 1000));
    assert_int_equal(judge(&e, syn), SM_EGRESS_PASS);
    assert_int_equal(judge(&e, tcp("93.184.216.34", 80, SM_TCP_SYN)), SM_EGRESS_REJECT);
    assert_int_equal(judge(&e, tcp("93.184.216.35", 443, SM_TCP_SYN)), SM_EGRESS_REJECT);
    struct sm_frame f;
    for (uint64_t t = 1000; t < 3600 * 1000; t += 50000) /* UDP keeps it, for an hour */
        assert_int_equal(sm_egress_judge(&e, quic.b, quic.len, t, &f), SM_EGRESS_PASS);
    assert_int_equal(sm_egress_judge(&e, quic.b, quic.len, 3601001, &f), SM_EGRESS_REJECT);
    assert_int_equal(sm_egress_judge(&e, syn.b, syn.len, 3601001, &f), SM_EGRESS_REJECT);
    sm_egress_clear(&e);
}

struct reports {
    unsigned n;
    uint64_t suppressed;
};

static void report(void *arg, const struct sm_denial *d)
{
    struct reports *r = arg;
    r->n++;
    r->suppressed += d->suppressed;
    assert_int_equal(d->port, 80);
    assert_int_equal(d->verdict, SM_VERDICT_LOOPBACK);
}

static void test_reports_are_limited(void **state)
{
    (void)state;
    struct reports reports = {0};
    struct sm_policy policy = {0};
    struct sm_egress e;
    struct packet p = tcp("127.0.0.1", 80, SM_TCP_SYN);
    sm_egress_init(&e, &policy, true, report, &reports);
    struct sm_frame f;
    for (unsigned i = 0; i < 1000; i++)
        sm_egress_judge(&e, p.b, p.len, 10, &f);
    assert_int_equal(reports.n, 20);
    sm_egress_judge(&e, p.b, p.len, 1010, &f);
    assert_int_equal(reports.n, 21);
    assert_int_equal(reports.suppressed, 980);
    assert_int_equal(e.counters.denied[SM_VERDICT_LOOPBACK], 1001);
    sm_egress_clear(&e);
}

/* Over a header and its pseudo header, checksum included, the sum is -0. */
static void check_sum(const uint8_t *frame, const struct sm_frame *f)
{
    size_t l4 = f->l3 + (f->v6 ? 40 : 20);
    uint8_t tail[4] = {0, f->protocol, (uint8_t)((f->end - l4) >> 8), (uint8_t)(f->end - l4)};
    uint32_t sum = 0;
    if (f->v6)
        sum = sm_inet_sum(frame + f->l3 + 8, 32, sm_inet_sum(tail, 4, 0));
    else if (f->protocol == SM_IP_TCP)
        sum = sm_inet_sum(frame + f->l3 + 12, 8, sm_inet_sum(tail, 4, 0));
    if (!f->v6)
        assert_int_equal(sm_inet_finish(sm_inet_sum(frame + f->l3, 20, 0)), 0);
    assert_int_equal(sm_inet_finish(sm_inet_sum(frame + l4, f->end - l4, sum)), 0);
}

static void test_refusals(void **state)
{
    (void)state;
    static const char *const hosts[] = {"10.1.1.1", "fd00::1"};
    for (int i = 0; i < 4; i++) {
        struct packet p = i & 2 ? tcp(hosts[i & 1], 80, SM_TCP_SYN) : udp(hosts[i & 1], 80);
        struct sm_frame f;
        sm_frame_parse(p.b, p.len, &f);
        assert_int_equal(f.kind, SM_FRAME_IP);
        uint8_t out[SM_FRAME_REFUSAL_MAX];
        size_t len = sm_frame_refuse(out, sizeof(out), p.b, &f);
        struct sm_frame back;
        sm_frame_parse(out, len, &back);
        assert_int_equal(back.kind, SM_FRAME_IP);
        assert_int_equal(back.end, len);
        assert_true(sm_ip_equal(&back.src, &f.dst) && sm_ip_equal(&back.dst, &f.src));
        assert_memory_equal(out, mac_a, 6);
        check_sum(out, &back);
        if (i & 2) {
            assert_int_equal(back.tcp_flags, SM_TCP_RST | SM_TCP_ACK);
            assert_int_equal(back.sport, 80);
            assert_int_equal(back.dport, 40000);
        } else {
            assert_int_equal(back.icmp_type, i & 1 ? 1 : 3);
        }
    }
}

static void test_no_reset_for_a_reset(void **state)
{
    (void)state;
    struct packet p = tcp("10.1.1.1", 80, SM_TCP_RST);
    struct sm_frame f;
    sm_frame_parse(p.b, p.len, &f);
    uint8_t out[SM_FRAME_REFUSAL_MAX];
    assert_int_equal(sm_frame_refuse(out, sizeof(out), p.b, &f), 0);
}

/* The answer to an IPv6 packet is one, even if it was sent to a v4-mapped address. */
static void test_refusal_of_mapped(void **state)
{
    (void)state;
    struct packet p = udp("2600::1", 80);
    struct sm_ip to = ip("::ffff:127.0.0.1");
    memcpy(p.b + 14 + 24, to.b, 16);
    struct sm_frame f;
    sm_frame_parse(p.b, p.len, &f);
    uint8_t out[SM_FRAME_REFUSAL_MAX];
    size_t len = sm_frame_refuse(out, sizeof(out), p.b, &f);
    struct sm_frame back;
    sm_frame_parse(out, len, &back);
    assert_true(back.kind == SM_FRAME_IP && back.v6);
    check_sum(out, &back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transports),
        cmocka_unit_test(test_mapped_on_the_wire),
        cmocka_unit_test(test_loopback_never),
        cmocka_unit_test(test_subnet),
        cmocka_unit_test(test_strict_parsing),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_neighbour_discovery),
        cmocka_unit_test(test_learned_names),
        cmocka_unit_test(test_reports_are_limited),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_no_reset_for_a_reset),
        cmocka_unit_test(test_refusal_of_mapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
