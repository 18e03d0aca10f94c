/*
 * What a guest's card is told about its network: addresses, gateways, name servers, MTU. In the
 * user-mode network it is the same in every VM; on a tap interface it is the user's to say.
 */
#ifndef SM_NET_GUEST_NET_H
#define SM_NET_GUEST_NET_H

#include <net/if.h>

#include <supermachine.h>

#include "net/addr.h"

#define SM_GUEST_NET_DNS   3
#define SM_RESOLV_TEXT_MAX 767 /* three name servers, search domains and options */

struct sm_guest_addr {
    bool given, routed; /* an address; a gateway */
    struct sm_ip addr, gateway;
    uint8_t prefix; /* as people write it: of 32 or of 128 bits */
};

struct sm_guest_net {
    uint8_t mac[6];
    uint16_t mtu;
    struct sm_guest_addr v4, v6;
    size_t n_dns;
    struct sm_ip dns[SM_GUEST_NET_DNS];
};

/* That of the user-mode network. */
void sm_guest_net_user(struct sm_guest_net *net);

/* "IFNAME[,ip=ADDR/LEN][,gw=ADDR][,ip6=ADDR/LEN][,gw6=ADDR][,mac=MAC][,dns=ADDR]...". Without ip
 * and ip6 the guest has the IPv4 address and gateway that it has in user mode, without mac a random
 * one (locally administered); n_dns is 0 where none is given, and mtu is the caller's to fill
 * in. */
struct sm_tap_spec {
    char ifname[IF_NAMESIZE];
    struct sm_guest_net net;
};
int sm_tap_spec_parse(const char *text, struct sm_tap_spec *spec, sm_error *err);

/* The name servers of the host that a guest may reach too (none on a loopback address or one of the
 * host's links); the gateway where there are none. */
struct sm_resolv_conf;
void sm_guest_net_resolvers(struct sm_guest_net *net, const struct sm_resolv_conf *host);

/* The guest's resolv.conf: its name servers, with the host's search domains and options. */
void sm_guest_net_resolv_text(const struct sm_guest_net *net, const struct sm_resolv_conf *host,
    char text[SM_RESOLV_TEXT_MAX + 1]);

#endif
