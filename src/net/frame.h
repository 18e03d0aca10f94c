/*
 * Ethernet frames of a guest, taken apart as far as the policy needs, and the few frames that we
 * make ourselves (UDP answers, refusals).
 *
 * The parser is strict, because what comes behind it (libslirp) must read a frame as we did: no
 * VLAN tags, no IPv4 options, no IPv6 extension headers, lengths that agree, ports in the first
 * fragment, TCP never fragmented. What is refused could not have been served anyway.
 */
#ifndef SM_NET_FRAME_H
#define SM_NET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/addr.h"

#define SM_ETH_HEADER   14
#define SM_ETH_ALEN     6
#define SM_IPV4_HEADER  20 /* bytes: options are not carried */
#define SM_IPV6_HEADER  40
#define SM_IP_TCP       6
#define SM_IP_UDP       17
#define SM_IP_ICMP      1
#define SM_IP_ICMPV6    58
#define SM_TCP_SEQ_AT   4
#define SM_TCP_ACK_AT   8
#define SM_TCP_CHECKSUM 16 /* where it is in the header */
#define SM_UDP_CHECKSUM 6
#define SM_TCP_FIN      0x01
#define SM_TCP_SYN      0x02
#define SM_TCP_RST      0x04
#define SM_TCP_ACK      0x10

#define SM_ICMP_ECHO   8
#define SM_ICMPV6_ECHO 128
#define SM_ICMPV6_NS   135
#define SM_ICMPV6_NA   136

enum sm_frame_kind {
    SM_FRAME_BAD = 0, /* malformed, or of a kind that is not carried */
    SM_FRAME_ARP,
    SM_FRAME_IP,
};

struct sm_frame {
    enum sm_frame_kind kind;
    bool v6;
    bool fragment;       /* any fragment of an IPv4 datagram */
    bool later_fragment; /* not the first one: no ports, no type */
    uint8_t protocol;
    uint8_t tcp_flags;
    uint8_t icmp_type;
    uint16_t sport, dport; /* TCP, UDP */
    struct sm_ip src, dst;
    size_t l3;      /* offset of the IP header */
    size_t payload; /* offset of what follows the TCP, UDP or ICMP header */
    size_t end;     /* of the IP datagram; Ethernet padding follows */
};

/* Fills *f; f->kind tells the result. */
void sm_frame_parse(const uint8_t *frame, size_t len, struct sm_frame *f);

/* Writes an Ethernet frame with a UDP datagram into out; returns its length, 0 if it does not fit.
 * The payload may overlap with nothing of out. */
struct sm_udp_packet {
    const uint8_t *dst_mac, *src_mac;
    struct sm_ip src, dst; /* both IPv4 or both IPv6 */
    uint16_t sport, dport;
    const void *payload;
    size_t len;
};
size_t sm_frame_make_udp(uint8_t *out, size_t room, const struct sm_udp_packet *p);

/* Answers the ARP request for `ip` with `mac`; 0 if the frame is something else. */
#define SM_ARP_FRAME 42
size_t sm_frame_answer_arp(uint8_t out[SM_ARP_FRAME], const uint8_t *frame, size_t len,
    const uint8_t *mac, const struct sm_ip *ip);

/* Answers the neighbour solicitation for `ip` likewise (f: the parsed frame). */
#define SM_NEIGHBOUR_FRAME (SM_ETH_HEADER + SM_IPV6_HEADER + 32)
size_t sm_frame_answer_ns(uint8_t out[SM_NEIGHBOUR_FRAME], const uint8_t *frame,
    const struct sm_frame *f, const uint8_t *mac, const struct sm_ip *ip);

/* Tells unasked that `ip` is at `mac`: a gratuitous ARP request or a neighbour advertisement. */
size_t sm_frame_announce(
    uint8_t out[SM_NEIGHBOUR_FRAME], const uint8_t *mac, const struct sm_ip *ip);

struct sm_tcp_reset {
    const uint8_t *dst_mac, *src_mac;
    struct sm_ip src, dst; /* both IPv4 or both IPv6 */
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint8_t flags; /* SM_TCP_RST, and SM_TCP_ACK if ack counts */
};
#define SM_RESET_FRAME_MAX (SM_ETH_HEADER + SM_IPV6_HEADER + 20)
size_t sm_frame_make_reset(uint8_t out[SM_RESET_FRAME_MAX], const struct sm_tcp_reset *reset);

/* Writes what tells the sender of frame f that it is refused: for a TCP segment a reset (an ICMP
 * error would be ignored while the socket is in use by connect, and Linux does not look at it
 * again), for everything else the ICMP error "administratively prohibited". Returns its length; 0:
 * nothing to say, to a reset. `room` must be at least SM_FRAME_REFUSAL_MAX. */
#define SM_FRAME_REFUSAL_MAX (SM_ETH_HEADER + 40 + 8 + 128)
size_t sm_frame_refuse(uint8_t *out, size_t room, const uint8_t *frame, const struct sm_frame *f);

/* A number of a TCP segment's: SM_TCP_SEQ_AT, SM_TCP_ACK_AT. */
uint32_t sm_frame_tcp_number(const uint8_t *frame, const struct sm_frame *f, size_t at);

/* Gives a TCP segment another sender (or receiver), checksums and *f included. */
enum sm_frame_end { SM_FRAME_SENDER, SM_FRAME_RECEIVER };
void sm_frame_readdress(uint8_t *frame, struct sm_frame *f, enum sm_frame_end end,
    const struct sm_ip *ip, uint16_t port);

#endif
