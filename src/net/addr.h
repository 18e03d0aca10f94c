/*
 * Internet addresses for the policy: one 16-byte form for both families (IPv4 as ::ffff:a.b.c.d),
 * so that an IPv4 address and its v4-mapped disguise are the same thing everywhere.
 */
#ifndef SM_NET_ADDR_H
#define SM_NET_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sm_ip {
    uint8_t b[16];
};

#define SM_IP_TEXT 64 /* holds any formatted address */

/* What an address is by the IANA special-purpose registries (RFC 6890 and its successors). */
enum sm_ip_class {
    SM_IP_GLOBAL = 0, /* ordinary unicast of the Internet */
    SM_IP_PRIVATE,    /* private, link-local, shared, multicast, reserved, documentation */
    SM_IP_THIS_HOST,  /* loopback and unspecified: a host that connects there reaches itself */
};

struct sm_ip sm_ip_from_v4(uint32_t host_order);
bool sm_ip_is_v4(const struct sm_ip *ip);
bool sm_ip_equal(const struct sm_ip *a, const struct sm_ip *b);

/* The classes of the address and of each IPv4 address that it carries inside (v4-mapped,
 * v4-compatible, v4-translated, NAT64, 6to4, Teredo), the worst of them. */
enum sm_ip_class sm_ip_classify(const struct sm_ip *ip);

/* Writes the IPv4 addresses (as sm_ip) that a translator or tunnel would reach for this IPv6
 * address; at most 2. A v4-mapped address is IPv4 already and carries none. */
size_t sm_ip_embedded(const struct sm_ip *ip, struct sm_ip out[2]);

/* Are the first `prefix` bits (of 128; IPv4 prefixes are counted from 96) equal? */
bool sm_ip_in_prefix(const struct sm_ip *ip, const struct sm_ip *net, unsigned prefix);

/* Dotted quad or IPv6 text (no zone). Returns false if it is neither. */
bool sm_ip_parse(const char *text, struct sm_ip *ip);
const char *sm_ip_format(const struct sm_ip *ip, char text[SM_IP_TEXT]);

#endif
