/*
 * Brings the network up: loopback, and the first card with the fixed addresses of the host's user
 * network (src/net/egress.h), without DHCP or router solicitation, so that nothing needs to be done
 * after a restore either. On another network (a tap interface) the host says what the card is to
 * be.
 *
 * One netlink message holds all requests, so it takes one system call. The kernel answers only
 * those that fail. No link-local IPv6 address and no duplicate address detection: their timers
 * would keep an idle guest awake, and there is nobody to ask.
 *
 * A change takes away what we gave, which somebody may have taken away already; a new MAC address,
 * even if it is the old one, makes the kernel forget the neighbours, which are others now.
 */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "console.h"
#include "system.h"
#include "wire/wire.h"

#define CARD     "eth0"
#define LOOPBACK 1 /* always the first interface */

/* What the card has from us. */
struct place {
    uint8_t family, prefix;
    bool given, routed; /* an address; a gateway */
    uint8_t address[16], gateway[16];
};
static struct place places[] = {
    {AF_INET, 24, true, true, {10, 0, 2, 15}, {10, 0, 2, 2}},
    {AF_INET6, 64, true, true, {0xfd, 0x73, 0x6d, 0x6e, 0x65, 0x74, [15] = 0x15},
        {0xfd, 0x73, 0x6d, 0x6e, 0x65, 0x74, [15] = 0x02}},
};

enum { MUST, MAY_FAIL }; /* sequence numbers of requests, which come back with an error */

struct requests {
    uint8_t bytes[1024];
    uint32_t len;
    uint32_t seq;
    struct nlmsghdr *last;
};

/* Appends to the last request; everything in it counts its length. */
static void *put(struct requests *r, const void *data, uint32_t len)
{
    void *at = r->bytes + r->len;
    if (data)
        memcpy(at, data, len);
    r->len += NLMSG_ALIGN(len);
    r->last->nlmsg_len = (uint32_t)(r->bytes + r->len - (uint8_t *)r->last);
    return at;
}

static void request(struct requests *r, uint16_t type, const void *body, uint32_t len)
{
    struct nlmsghdr h = {
        .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE, .nlmsg_seq = r->seq};
    r->last = (struct nlmsghdr *)(r->bytes + r->len);
    put(r, &h, sizeof(h));
    put(r, body, len);
}

static struct rtattr *attribute(struct requests *r, uint16_t type, const void *data, uint32_t len)
{
    struct rtattr a = {.rta_type = type, .rta_len = (uint16_t)(sizeof(a) + len)};
    struct rtattr *at = put(r, &a, sizeof(a));
    if (len)
        put(r, data, len);
    return at;
}

static void link_up(struct requests *r, int index)
{
    struct ifinfomsg m = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    request(r, RTM_SETLINK, &m, sizeof(m));
}

/* IFLA_AF_SPEC { AF_INET6 { mode } } */
static void no_link_local_address(struct requests *r, int index)
{
    struct ifinfomsg m = {.ifi_index = index};
    uint8_t mode = IN6_ADDR_GEN_MODE_NONE;
    request(r, RTM_SETLINK, &m, sizeof(m));
    struct rtattr *spec = attribute(r, IFLA_AF_SPEC | NLA_F_NESTED, NULL, 0);
    struct rtattr *inet6 = attribute(r, AF_INET6 | NLA_F_NESTED, NULL, 0);
    attribute(r, IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof(mode));
    spec->rta_len = (uint16_t)(r->bytes + r->len - (uint8_t *)spec);
    inet6->rta_len = (uint16_t)(r->bytes + r->len - (uint8_t *)inet6);
}

static void link_identity(struct requests *r, int index, const uint8_t mac[6], uint32_t mtu)
{
    struct ifinfomsg m = {.ifi_index = index};
    request(r, RTM_SETLINK, &m, sizeof(m));
    attribute(r, IFLA_ADDRESS, mac, 6);
    attribute(r, IFLA_MTU, &mtu, sizeof(mtu));
}

static uint32_t address_len(const struct place *p)
{
    return p->family == AF_INET ? 4 : 16;
}

/* RTM_NEWADDR, RTM_DELADDR */
static void address(struct requests *r, uint16_t type, int index, const struct place *p)
{
    struct ifaddrmsg m = {.ifa_family = p->family,
        .ifa_prefixlen = p->prefix,
        .ifa_flags = IFA_F_PERMANENT | IFA_F_NODAD,
        .ifa_index = (uint32_t)index};
    request(r, type, &m, sizeof(m));
    attribute(r, IFA_LOCAL, p->address, address_len(p));
}

/* RTM_NEWROUTE, RTM_DELROUTE */
static void default_route(struct requests *r, uint16_t type, int index, const struct place *p)
{
    struct rtmsg m = {.rtm_family = p->family,
        .rtm_table = RT_TABLE_MAIN,
        .rtm_protocol = RTPROT_BOOT,
        .rtm_scope = RT_SCOPE_UNIVERSE,
        .rtm_type = RTN_UNICAST};
    uint32_t out = (uint32_t)index;
    request(r, type, &m, sizeof(m));
    attribute(r, RTA_GATEWAY, p->gateway, address_len(p));
    attribute(r, RTA_OIF, &out, sizeof(out));
}

static void occupy(struct requests *r, int index)
{
    for (const struct place *p = places; p < places + 2; p++) {
        if (p->given)
            address(r, RTM_NEWADDR, index, p);
        if (p->routed)
            default_route(r, RTM_NEWROUTE, index, p);
    }
}

static void leave(struct requests *r, int index)
{
    r->seq = MAY_FAIL;
    for (const struct place *p = places; p < places + 2; p++) {
        if (p->routed)
            default_route(r, RTM_DELROUTE, index, p);
        if (p->given)
            address(r, RTM_DELADDR, index, p);
    }
    r->seq = MUST;
}

/* The first failure that the kernel tells of and that counts, or 0. */
static int outcome(int fd)
{
    uint8_t answer[1024];
    for (;;) {
        ssize_t n = recv(fd, answer, sizeof(answer), MSG_DONTWAIT);
        const struct nlmsghdr *h = (const struct nlmsghdr *)answer;
        if (n < 0)
            return errno == EAGAIN ? 0 : errno;
        if (!NLMSG_OK(h, (size_t)n) || h->nlmsg_type != NLMSG_ERROR)
            return EPROTO;
        if (h->nlmsg_seq == MUST)
            return -((const struct nlmsgerr *)NLMSG_DATA(h))->error;
    }
}

static int carry_out(int fd, const struct requests *r)
{
    return send(fd, r->bytes, r->len, 0) == (ssize_t)r->len ? outcome(fd) : errno;
}

static int open_netlink(void)
{
    return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
}

void network_up(void)
{
    int fd = open_netlink();
    if (fd < 0)
        die("cannot open ", "netlink", errno);
    struct requests r = {.len = 0};
    link_up(&r, LOOPBACK);
    struct ifreq card = {.ifr_name = CARD};
    if (ioctl(fd, SIOCGIFINDEX, &card) == 0) { /* a machine may have no card */
        no_link_local_address(&r, card.ifr_ifindex);
        link_up(&r, card.ifr_ifindex);
        occupy(&r, card.ifr_ifindex);
    }
    int e = carry_out(fd, &r);
    if (e != 0)
        die("cannot set up ", "the network", e);
    close(fd);
}

static void settle(struct place *p, const struct sm_wire_bytes *address, uint16_t prefix,
    const struct sm_wire_bytes *gateway)
{
    p->given = address->len != 0;
    p->routed = gateway->len != 0;
    p->prefix = (uint8_t)prefix;
    memcpy(p->address, address->data, address->len);
    memcpy(p->gateway, gateway->data, gateway->len);
}

const uint8_t *system_card_address(bool v6)
{
    return places[v6].given ? places[v6].address : NULL;
}

const uint8_t *system_card_gateway(bool v6)
{
    return places[v6].routed ? places[v6].gateway : NULL;
}

int system_set_network(const struct sm_wire_set_network *m, const char **what)
{
    *what = "cannot set up the network card";
    int fd = open_netlink();
    if (fd < 0)
        return errno;
    struct ifreq card = {.ifr_name = CARD};
    int e = ioctl(fd, SIOCGIFINDEX, &card) == 0 ? 0 : errno;
    if (e == 0) {
        struct requests r = {.len = 0};
        leave(&r, card.ifr_ifindex);
        link_identity(&r, card.ifr_ifindex, m->mac.data, m->mtu);
        settle(&places[0], &m->address4, m->prefix4, &m->gateway4);
        settle(&places[1], &m->address6, m->prefix6, &m->gateway6);
        occupy(&r, card.ifr_ifindex);
        e = carry_out(fd, &r);
    }
    close(fd);
    return e;
}
