/*
 * Brings the network up: loopback, and the first card with the fixed addresses of the host's user
 * network (src/net/egress.h), without DHCP or router solicitation, so that nothing needs to be done
 * after a restore either.
 *
 * One netlink message holds all requests, so it takes one system call. The kernel answers only
 * those that fail. No link-local IPv6 address and no duplicate address detection: their timers would
 * keep an idle guest awake, and there is nobody to ask.
 */
#include "boot.h"

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

#define CARD     "eth0"
#define LOOPBACK 1 /* always the first interface */

static const uint8_t address4[] = {10, 0, 2, 15}, gateway4[] = {10, 0, 2, 2};
static const uint8_t address6[16] = {0xfd, 0x73, 0x6d, 0x6e, 0x65, 0x74, [15] = 0x15};
static const uint8_t gateway6[16] = {0xfd, 0x73, 0x6d, 0x6e, 0x65, 0x74, [15] = 0x02};

struct requests {
    uint8_t bytes[512];
    uint32_t len;
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
    struct nlmsghdr h = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE};
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

static void address(struct requests *r, int index, uint8_t family, uint8_t prefix, const void *a)
{
    struct ifaddrmsg m = {.ifa_family = family,
        .ifa_prefixlen = prefix,
        .ifa_flags = IFA_F_PERMANENT | IFA_F_NODAD,
        .ifa_index = (uint32_t)index};
    request(r, RTM_NEWADDR, &m, sizeof(m));
    attribute(r, IFA_LOCAL, a, family == AF_INET ? 4 : 16);
}

static void default_route(struct requests *r, int index, uint8_t family, const void *gateway)
{
    struct rtmsg m = {.rtm_family = family,
        .rtm_table = RT_TABLE_MAIN,
        .rtm_protocol = RTPROT_BOOT,
        .rtm_scope = RT_SCOPE_UNIVERSE,
        .rtm_type = RTN_UNICAST};
    uint32_t out = (uint32_t)index;
    request(r, RTM_NEWROUTE, &m, sizeof(m));
    attribute(r, RTA_GATEWAY, gateway, family == AF_INET ? 4 : 16);
    attribute(r, RTA_OIF, &out, sizeof(out));
}

/* The first failure that the kernel tells of, or 0. */
static int outcome(int fd)
{
    uint8_t answer[1024];
    ssize_t n = recv(fd, answer, sizeof(answer), MSG_DONTWAIT);
    const struct nlmsghdr *h = (const struct nlmsghdr *)answer;
    if (n < 0)
        return errno == EAGAIN ? 0 : errno;
    if (!NLMSG_OK(h, (size_t)n) || h->nlmsg_type != NLMSG_ERROR)
        return EPROTO;
    return -((const struct nlmsgerr *)NLMSG_DATA(h))->error;
}

void network_up(void)
{
    struct requests r = {.len = 0};
    struct ifreq card = {.ifr_name = CARD};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (fd < 0)
        die("cannot open ", "netlink", errno);
    link_up(&r, LOOPBACK);
    if (ioctl(fd, SIOCGIFINDEX, &card) == 0) { /* a machine may have no card */
        no_link_local_address(&r, card.ifr_ifindex);
        link_up(&r, card.ifr_ifindex);
        address(&r, card.ifr_ifindex, AF_INET, 24, address4);
        address(&r, card.ifr_ifindex, AF_INET6, 64, address6);
        default_route(&r, card.ifr_ifindex, AF_INET, gateway4);
        default_route(&r, card.ifr_ifindex, AF_INET6, gateway6);
    }
    if (send(fd, r.bytes, r.len, 0) != (ssize_t)r.len)
        die("cannot set up ", "the network", errno);
    int e = outcome(fd);
    if (e != 0)
        die("cannot set up ", "the network", e);
    close(fd);
}
