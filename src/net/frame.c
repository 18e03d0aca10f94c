/* Frames taken apart and put together. See frame.h. Offsets are kept, not pointers: each is checked
 * against the end of what its header says, which was checked against the end of the frame. Our own
 * frames are made from nothing, with checksums, and fit the buffers that the header names. */
#include "net/frame.h"

#include <string.h>

#include "util/bytes.h"
#include "util/inet_checksum.h"

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP  0x0806
#define ETHERTYPE_IPV6 0x86dd
#define ARP_LENGTH     28
#define MORE_FRAGMENTS 0x2000u
#define FRAGMENT_MASK  0x1fffu
#define NEIGHBOUR_HOPS 255 /* of neighbour discovery: a router would have made it less */
#define ADVERTISEMENT  32  /* bytes of ICMPv6 */

/* Ports, flags and type; false if the header is cut or its lengths do not agree. */
static bool parse_l4(const uint8_t *frame, size_t at, struct sm_frame *f)
{
    if (f->later_fragment) {
        f->payload = at;
        return f->protocol == SM_IP_UDP || f->protocol == SM_IP_ICMP;
    }
    size_t have = f->end - at;
    switch (f->protocol) {
    case SM_IP_TCP: {
        if (have < 20 || f->fragment)
            return false;
        size_t header = (size_t)(frame[at + 12] >> 4) * 4;
        if (header < 20 || header > have)
            return false;
        f->tcp_flags = frame[at + 13];
        f->payload = at + header;
        break;
    }
    case SM_IP_UDP:
        if (have < 8 || sm_load_be16(frame + at + 4) < 8)
            return false;
        if (!f->fragment && sm_load_be16(frame + at + 4) != have)
            return false;
        f->payload = at + 8;
        break;
    case SM_IP_ICMP:
    case SM_IP_ICMPV6:
        if (have < 8 || (f->protocol == SM_IP_ICMPV6) != f->v6)
            return false;
        f->icmp_type = frame[at];
        f->payload = at + 8;
        return true;
    default:
        return false;
    }
    f->sport = sm_load_be16(frame + at);
    f->dport = sm_load_be16(frame + at + 2);
    return true;
}

static bool parse_ipv4(const uint8_t *frame, size_t len, struct sm_frame *f)
{
    const uint8_t *ip = frame + f->l3;
    size_t have = len - f->l3;
    if (have < SM_IPV4_HEADER || ip[0] != 0x45)
        return false;
    size_t total = sm_load_be16(ip + 2);
    if (total < SM_IPV4_HEADER || total > have)
        return false;
    unsigned fragment = sm_load_be16(ip + 6);
    f->later_fragment = (fragment & FRAGMENT_MASK) != 0;
    f->fragment = f->later_fragment || (fragment & MORE_FRAGMENTS);
    f->protocol = ip[9];
    f->src = sm_ip_from_v4((uint32_t)sm_load_be16(ip + 12) << 16 | sm_load_be16(ip + 14));
    f->dst = sm_ip_from_v4((uint32_t)sm_load_be16(ip + 16) << 16 | sm_load_be16(ip + 18));
    f->end = f->l3 + total;
    return parse_l4(frame, f->l3 + SM_IPV4_HEADER, f);
}

static bool parse_ipv6(const uint8_t *frame, size_t len, struct sm_frame *f)
{
    const uint8_t *ip = frame + f->l3;
    size_t have = len - f->l3;
    if (have < SM_IPV6_HEADER || ip[0] >> 4 != 6)
        return false;
    size_t payload = sm_load_be16(ip + 4);
    if (payload > have - SM_IPV6_HEADER)
        return false;
    f->v6 = true;
    f->protocol = ip[6];
    memcpy(f->src.b, ip + 8, 16);
    memcpy(f->dst.b, ip + 24, 16);
    f->end = f->l3 + SM_IPV6_HEADER + payload;
    return parse_l4(frame, f->l3 + SM_IPV6_HEADER, f);
}

void sm_frame_parse(const uint8_t *frame, size_t len, struct sm_frame *f)
{
    *f = (struct sm_frame){.l3 = SM_ETH_HEADER};
    if (len < SM_ETH_HEADER)
        return;
    switch (sm_load_be16(frame + 12)) {
    case ETHERTYPE_ARP:
        if (len >= SM_ETH_HEADER + ARP_LENGTH)
            f->kind = SM_FRAME_ARP;
        break;
    case ETHERTYPE_IPV4:
        if (parse_ipv4(frame, len, f))
            f->kind = SM_FRAME_IP;
        break;
    case ETHERTYPE_IPV6:
        if (parse_ipv6(frame, len, f))
            f->kind = SM_FRAME_IP;
        break;
    default:
        break;
    }
}

/* ---- frames of our own --------------------------------------------------------------------- */

/* An IPv6 packet may name a v4-mapped address on one side. */
static bool both_v4(const struct sm_ip *a, const struct sm_ip *b)
{
    return sm_ip_is_v4(a) && sm_ip_is_v4(b);
}

/* Ethernet and IP header for `payload` bytes of `protocol`; returns the offset behind them. */
static size_t put_headers(uint8_t *out, const uint8_t *dst_mac, const uint8_t *src_mac,
    const struct sm_ip *src, const struct sm_ip *dst, uint8_t protocol, size_t payload)
{
    memcpy(out, dst_mac, SM_ETH_ALEN);
    memcpy(out + SM_ETH_ALEN, src_mac, SM_ETH_ALEN);
    bool v4 = both_v4(src, dst);
    sm_store_be16(out + 12, v4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    uint8_t *ip = out + SM_ETH_HEADER;
    if (!v4) {
        memset(ip, 0, SM_IPV6_HEADER);
        ip[0] = 0x60;
        sm_store_be16(ip + 4, payload);
        ip[6] = protocol;
        ip[7] = 64;
        memcpy(ip + 8, src->b, 16);
        memcpy(ip + 24, dst->b, 16);
        return SM_ETH_HEADER + SM_IPV6_HEADER;
    }
    memset(ip, 0, SM_IPV4_HEADER);
    ip[0] = 0x45;
    sm_store_be16(ip + 2, SM_IPV4_HEADER + payload);
    ip[8] = 64;
    ip[9] = protocol;
    memcpy(ip + 12, src->b + 12, 4);
    memcpy(ip + 16, dst->b + 12, 4);
    uint16_t sum = sm_inet_finish(sm_inet_sum(ip, SM_IPV4_HEADER, 0));
    memcpy(ip + 10, &sum, 2);
    return SM_ETH_HEADER + SM_IPV4_HEADER;
}

/* Sum of the pseudo header; addresses are summed in their short or long form alike. */
static uint32_t pseudo_sum(
    const struct sm_ip *src, const struct sm_ip *dst, uint8_t protocol, size_t len)
{
    uint8_t tail[4] = {0, protocol};
    sm_store_be16(tail + 2, len);
    size_t skip = both_v4(src, dst) ? 12 : 0;
    uint32_t sum = sm_inet_sum(src->b + skip, 16 - skip, 0);
    sum = sm_inet_sum(dst->b + skip, 16 - skip, sum);
    return sm_inet_sum(tail, sizeof(tail), sum);
}

size_t sm_frame_make_udp(uint8_t *out, size_t room, const struct sm_udp_packet *p)
{
    size_t header = SM_ETH_HEADER + (both_v4(&p->src, &p->dst) ? SM_IPV4_HEADER : SM_IPV6_HEADER);
    size_t udp = 8 + p->len;
    if (p->len > 65000 || room < header + udp)
        return 0;
    size_t at = put_headers(out, p->dst_mac, p->src_mac, &p->src, &p->dst, SM_IP_UDP, udp);
    sm_store_be16(out + at, p->sport);
    sm_store_be16(out + at + 2, p->dport);
    sm_store_be16(out + at + 4, udp);
    sm_store_be16(out + at + 6, 0);
    memcpy(out + at + 8, p->payload, p->len);
    uint16_t sum =
        sm_inet_finish(sm_inet_sum(out + at, udp, pseudo_sum(&p->src, &p->dst, SM_IP_UDP, udp)));
    if (sum == 0)
        sum = 0xffff;
    memcpy(out + at + 6, &sum, 2);
    return at + udp;
}

size_t sm_frame_answer_arp(uint8_t out[SM_ARP_FRAME], const uint8_t *frame, size_t len,
    const uint8_t *mac, const struct sm_ip *ip)
{
    static const uint8_t request[8] = {0, 1, 0x08, 0, 6, 4, 0, 1}; /* Ethernet, IPv4, "who has" */
    const uint8_t *arp = frame + SM_ETH_HEADER;
    if (len < SM_ARP_FRAME || sm_load_be16(frame + 12) != ETHERTYPE_ARP ||
        memcmp(arp, request, sizeof(request)) != 0 || memcmp(arp + 24, ip->b + 12, 4) != 0)
        return 0;
    memcpy(out, frame + SM_ETH_ALEN, SM_ETH_ALEN);
    memcpy(out + SM_ETH_ALEN, mac, SM_ETH_ALEN);
    sm_store_be16(out + 12, ETHERTYPE_ARP);
    memcpy(out + 14, request, sizeof(request));
    out[21] = 2;
    memcpy(out + 22, mac, SM_ETH_ALEN);
    memcpy(out + 28, ip->b + 12, 4);
    memcpy(out + 32, arp + 8, 10); /* to whom asked: hardware and protocol address */
    return SM_ARP_FRAME;
}

/* A neighbour advertisement with the link-layer address as its option. flags: router, solicited,
 * override. */
static size_t make_advertisement(uint8_t out[SM_NEIGHBOUR_FRAME], const uint8_t *dst_mac,
    const struct sm_ip *dst, const uint8_t *mac, const struct sm_ip *ip, uint8_t flags)
{
    size_t at = put_headers(out, dst_mac, mac, ip, dst, SM_IP_ICMPV6, ADVERTISEMENT);
    out[SM_ETH_HEADER + 7] = NEIGHBOUR_HOPS;
    memset(out + at, 0, ADVERTISEMENT);
    out[at] = SM_ICMPV6_NA;
    out[at + 4] = flags;
    memcpy(out + at + 8, ip->b, 16);
    out[at + 24] = 2; /* target link-layer address, one unit of 8 bytes */
    out[at + 25] = 1;
    memcpy(out + at + 26, mac, SM_ETH_ALEN);
    uint16_t sum = sm_inet_finish(
        sm_inet_sum(out + at, ADVERTISEMENT, pseudo_sum(ip, dst, SM_IP_ICMPV6, ADVERTISEMENT)));
    memcpy(out + at + 2, &sum, 2);
    return at + ADVERTISEMENT;
}

size_t sm_frame_answer_ns(uint8_t out[SM_NEIGHBOUR_FRAME], const uint8_t *frame,
    const struct sm_frame *f, const uint8_t *mac, const struct sm_ip *ip)
{
    static const struct sm_ip unspecified = {{0}};
    if (f->kind != SM_FRAME_IP || f->protocol != SM_IP_ICMPV6 || f->icmp_type != SM_ICMPV6_NS ||
        f->end - f->payload < 16 || frame[f->l3 + 7] != NEIGHBOUR_HOPS ||
        memcmp(frame + f->payload, ip->b, 16) != 0 || sm_ip_equal(&f->src, &unspecified))
        return 0;
    return make_advertisement(out, frame + SM_ETH_ALEN, &f->src, mac, ip, 0xe0);
}

size_t sm_frame_announce(
    uint8_t out[SM_NEIGHBOUR_FRAME], const uint8_t *mac, const struct sm_ip *ip)
{
    static const struct sm_ip all_nodes = {{0xff, 0x02, [15] = 1}};
    if (!sm_ip_is_v4(ip))
        return make_advertisement(out, mac, &all_nodes, mac, ip, 0x20);
    memcpy(out, mac, SM_ETH_ALEN);
    memcpy(out + SM_ETH_ALEN, mac, SM_ETH_ALEN);
    sm_store_be16(out + 12, ETHERTYPE_ARP);
    static const uint8_t request[8] = {0, 1, 0x08, 0, 6, 4, 0, 1};
    memcpy(out + 14, request, sizeof(request));
    memcpy(out + 22, mac, SM_ETH_ALEN);
    memcpy(out + 28, ip->b + 12, 4);
    memset(out + 32, 0, SM_ETH_ALEN);
    memcpy(out + 38, ip->b + 12, 4);
    return SM_ARP_FRAME;
}

static size_t make_prohibited(uint8_t *out, const uint8_t *frame, const struct sm_frame *f)
{
    size_t quoted = SM_MIN(f->end - f->l3, 128u);
    uint8_t protocol = f->v6 ? SM_IP_ICMPV6 : SM_IP_ICMP;
    size_t at =
        put_headers(out, frame + SM_ETH_ALEN, frame, &f->dst, &f->src, protocol, 8 + quoted);
    memset(out + at, 0, 8);
    out[at] = f->v6 ? 1 : 3;      /* destination unreachable, */
    out[at + 1] = f->v6 ? 1 : 13; /* administratively prohibited */
    memcpy(out + at + 8, frame + f->l3, quoted);
    uint32_t start = 0;
    if (f->v6)
        start = pseudo_sum(&f->dst, &f->src, protocol, 8 + quoted);
    uint16_t sum = sm_inet_finish(sm_inet_sum(out + at, 8 + quoted, start));
    memcpy(out + at + 2, &sum, 2);
    return at + 8 + quoted;
}

size_t sm_frame_make_reset(uint8_t out[SM_RESET_FRAME_MAX], const struct sm_tcp_reset *r)
{
    size_t at = put_headers(out, r->dst_mac, r->src_mac, &r->src, &r->dst, SM_IP_TCP, 20);
    uint8_t *reset = out + at;
    memset(reset, 0, 20);
    sm_store_be16(reset, r->sport);
    sm_store_be16(reset + 2, r->dport);
    sm_store_be32(reset + 4, r->seq);
    sm_store_be32(reset + 8, r->ack);
    reset[12] = 0x50;
    reset[13] = r->flags;
    uint16_t sum =
        sm_inet_finish(sm_inet_sum(reset, 20, pseudo_sum(&r->src, &r->dst, SM_IP_TCP, 20)));
    memcpy(reset + SM_TCP_CHECKSUM, &sum, 2);
    return at + 20;
}

uint32_t sm_frame_tcp_number(const uint8_t *frame, const struct sm_frame *f, size_t at)
{
    return sm_load_be32(frame + f->l3 + (f->v6 ? SM_IPV6_HEADER : SM_IPV4_HEADER) + at);
}

/* RFC 9293, 3.5.2: a segment with ACK is reset from there, one without is acknowledged by the
 * reset. */
static size_t refuse_tcp(uint8_t *out, const uint8_t *frame, const struct sm_frame *f)
{
    if (f->tcp_flags & SM_TCP_RST)
        return 0;
    struct sm_tcp_reset reset = {.dst_mac = frame + SM_ETH_ALEN,
        .src_mac = frame,
        .src = f->dst,
        .dst = f->src,
        .sport = f->dport,
        .dport = f->sport,
        .flags = SM_TCP_RST};
    if (f->tcp_flags & SM_TCP_ACK) {
        reset.seq = sm_frame_tcp_number(frame, f, SM_TCP_ACK_AT);
    } else {
        reset.flags |= SM_TCP_ACK;
        reset.ack = sm_frame_tcp_number(frame, f, SM_TCP_SEQ_AT) + (uint32_t)(f->end - f->payload) +
                    ((f->tcp_flags & SM_TCP_SYN) ? 1 : 0) + ((f->tcp_flags & SM_TCP_FIN) ? 1 : 0);
    }
    return sm_frame_make_reset(out, &reset);
}

size_t sm_frame_refuse(uint8_t *out, size_t room, const uint8_t *frame, const struct sm_frame *f)
{
    if (room < SM_FRAME_REFUSAL_MAX)
        return 0;
    return f->protocol == SM_IP_TCP ? refuse_tcp(out, frame, f) : make_prohibited(out, frame, f);
}

/* RFC 1624: the checksum of what has `with` where it had `was`. */
static void adjust(uint8_t *checksum, const uint8_t *was, const uint8_t *with, size_t len)
{
    uint8_t minus[sizeof(struct sm_ip)];
    uint16_t sum;
    memcpy(&sum, checksum, sizeof(sum));
    for (size_t i = 0; i < len; i++)
        minus[i] = (uint8_t)~was[i];
    sum = sm_inet_finish(sm_inet_sum(with, len, sm_inet_sum(minus, len, (uint16_t)~sum)));
    memcpy(checksum, &sum, sizeof(sum));
}

void sm_frame_readdress(uint8_t *frame, struct sm_frame *f, enum sm_frame_end end,
    const struct sm_ip *ip, uint16_t port)
{
    bool receiver = end == SM_FRAME_RECEIVER;
    uint8_t *l3 = frame + f->l3, *tcp = l3 + (f->v6 ? SM_IPV6_HEADER : SM_IPV4_HEADER);
    size_t len = f->v6 ? 16 : 4;
    uint8_t *address = l3 + (f->v6 ? 8 : 12) + (receiver ? len : 0);
    uint8_t *old_port = tcp + (receiver ? 2 : 0), new_port[2];
    const uint8_t *with = ip->b + 16 - len;
    sm_store_be16(new_port, port);
    if (!f->v6)
        adjust(l3 + 10, address, with, len);
    adjust(tcp + SM_TCP_CHECKSUM, address, with, len);
    adjust(tcp + SM_TCP_CHECKSUM, old_port, new_port, 2);
    memcpy(address, with, len);
    memcpy(old_port, new_port, 2);
    *(receiver ? &f->dst : &f->src) = *ip;
    *(receiver ? &f->dport : &f->sport) = port;
}
