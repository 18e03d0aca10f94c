/*
 * A guest's view of its network. See guest_net.h.
 *
 * System calls: getrandom.
 */
#include "net/guest_net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "devices/virtio_net.h"
#include "net/egress.h"
#include "net/resolv_conf.h"
#include "net/user_net.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

#define TEXT_MAX 512

static struct sm_guest_addr address_in(const struct sm_subnet *subnet, unsigned skipped_bits)
{
    return (struct sm_guest_addr){
        .given = true,
        .routed = true,
        .addr = subnet->guest,
        .gateway = subnet->gateway,
        .prefix = (uint8_t)(subnet->prefix - skipped_bits),
    };
}

void sm_guest_net_user(struct sm_guest_net *net)
{
    *net = (struct sm_guest_net){
        .mtu = SM_NET_MTU,
        .v4 = address_in(&sm_subnet_v4, 96),
        .v6 = address_in(&sm_subnet_v6, 0),
        .n_dns = 1,
        .dns = {sm_subnet_v4.dns},
    };
    memcpy(net->mac, sm_user_net_mac, sizeof(net->mac));
}

/* ---- the words of --network tap ------------------------------------------------------------- */

static bool is_ifname(const char *name)
{
    /* What the kernel refuses, and '%', of which it would make up a number. */
    return *name && strlen(name) < IF_NAMESIZE && !strpbrk(name, "/:% \t\n\r\v\f") &&
           strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool parse_mac(const char *text, uint8_t mac[6])
{
    if (strlen(text) != 17)
        return false;
    for (int i = 0; i < 6; i++) {
        char *end;
        mac[i] = (uint8_t)strtoul(text + 3 * i, &end, 16);
        if (end != text + 3 * i + 2 || *end != (i < 5 ? ':' : '\0'))
            return false;
    }
    char again[18];
    /* strtoul takes signs and spaces. */
    snprintf(again, sizeof(again), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
        mac[4], mac[5]);
    static const uint8_t none[6];
    return strcasecmp(again, text) == 0 && !(mac[0] & 1) && memcmp(mac, none, sizeof(none)) != 0;
}

static bool is_unicast(const struct sm_ip *ip)
{
    if (sm_ip_classify(ip) == SM_IP_THIS_HOST)
        return false;
    return sm_ip_is_v4(ip) ? ip->b[12] != 0 && ip->b[12] < 224 : ip->b[0] != 0xff;
}

static bool parse_ip(const char *text, bool v6, struct sm_ip *ip)
{
    return (strchr(text, ':') != NULL) == v6 && sm_ip_parse(text, ip) && sm_ip_is_v4(ip) != v6 &&
           is_unicast(ip);
}

static bool parse_cidr(char *text, bool v6, struct sm_guest_addr *to)
{
    char *slash = strchr(text, '/');
    if (!slash || slash[1] < '0' || slash[1] > '9')
        return false;
    *slash = '\0';
    char *end;
    unsigned long prefix = strtoul(slash + 1, &end, 10);
    if (*end || prefix < 1 || prefix > (v6 ? 128 : 32) || !parse_ip(text, v6, &to->addr))
        return false;
    to->prefix = (uint8_t)prefix;
    return !to->given && (to->given = true);
}

static bool parse_gateway(const char *text, bool v6, struct sm_guest_addr *to)
{
    return !to->routed && parse_ip(text, v6, &to->gateway) && (to->routed = true);
}

static bool parse_option(char *word, struct sm_tap_spec *spec)
{
    char *value = strchr(word, '=');
    if (!value)
        return false;
    *value++ = '\0';
    struct sm_guest_net *net = &spec->net;
    if (strcmp(word, "ip") == 0)
        return parse_cidr(value, false, &net->v4);
    if (strcmp(word, "ip6") == 0)
        return parse_cidr(value, true, &net->v6);
    if (strcmp(word, "gw") == 0)
        return parse_gateway(value, false, &net->v4);
    if (strcmp(word, "gw6") == 0)
        return parse_gateway(value, true, &net->v6);
    if (strcmp(word, "mac") == 0)
        return parse_mac(value, net->mac);
    if (strcmp(word, "dns") == 0 && net->n_dns < SM_GUEST_NET_DNS)
        return parse_ip(value, strchr(value, ':') != NULL, &net->dns[net->n_dns++]);
    return false;
}

/* A gateway must be a neighbour, or the guest has no way to it. */
static int check_gateway(
    const struct sm_guest_addr *a, unsigned skipped_bits, const char *name, sm_error *err)
{
    if (!a->routed)
        return 0;
    if (a->given && sm_ip_in_prefix(&a->gateway, &a->addr, a->prefix + skipped_bits) &&
        !sm_ip_equal(&a->gateway, &a->addr))
        return 0;
    return sm_error_set(err, SM_EINVAL,
        "the guest has no address in the network of its gateway %s=; give it one with ip%s=ADDRESS/LENGTH",
        name, name + 2);
}

static int draw_mac(uint8_t mac[6], sm_error *err)
{
    if (getrandom(mac, 6, 0) != 6)
        return sm_error_errno(err, errno, "cannot make up a MAC address");
    mac[0] = (uint8_t)((mac[0] & ~1u) | 2u); /* one card, locally administered */
    return 0;
}

int sm_tap_spec_parse(const char *text, struct sm_tap_spec *spec, sm_error *err)
{
    char copy[TEXT_MAX];
    if (strlen(text) >= sizeof(copy))
        return sm_error_set(err, SM_EINVAL, "the network's options are too long");
    strcpy(copy, text);
    char *rest = copy;
    char *word = strsep(&rest, ",");
    if (!is_ifname(word))
        return sm_error_set(err, SM_EINVAL,
            "'%.100s' is no name of a network interface; write tap:IFNAME, IFNAME of at most %d characters",
            word, IF_NAMESIZE - 1);
    struct sm_tap_spec result = {0};
    strcpy(result.ifname, word);
    while ((word = strsep(&rest, ",")))
        if (!parse_option(word, &result))
            return sm_error_set(err, SM_EINVAL,
                "the network option that begins with '%.40s' makes no sense; "
                "there are ip=ADDRESS/LENGTH, gw=ADDRESS, ip6=, gw6=, "
                "mac=MAC once each and dns=ADDRESS up to %d times",
                word, SM_GUEST_NET_DNS);
    struct sm_guest_net user;
    sm_guest_net_user(&user);
    if (!result.net.v4.given && !result.net.v6.given && !result.net.v4.routed)
        result.net.v4 = user.v4;
    int rc = check_gateway(&result.net.v4, 96, "gw", err);
    if (!rc)
        rc = check_gateway(&result.net.v6, 0, "gw6", err);
    static const uint8_t no_mac[6];
    if (!rc && memcmp(result.net.mac, no_mac, sizeof(no_mac)) == 0)
        rc = draw_mac(result.net.mac, err);
    if (!rc)
        *spec = result;
    return rc;
}

/* ---- name servers --------------------------------------------------------------------------- */

static bool ip_of(const struct sockaddr_storage *from, struct sm_ip *ip)
{
    const struct sockaddr_in *v4 = (const void *)from;
    if (from->ss_family == AF_INET) {
        *ip = sm_ip_from_v4(be32toh(v4->sin_addr.s_addr));
        return v4->sin_port == htobe16(53);
    }
    const struct sockaddr_in6 *v6 = (const void *)from;
    memcpy(ip->b, &v6->sin6_addr, sizeof(ip->b));
    /* A link-local address is one of the host's links. */
    return v6->sin6_port == htobe16(53) && !IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr);
}

void sm_guest_net_resolvers(struct sm_guest_net *net, const struct sm_resolv_conf *host)
{
    for (size_t i = 0; i < host->n && net->n_dns < SM_GUEST_NET_DNS; i++) {
        struct sm_ip ip;
        if (ip_of(&host->servers[i], &ip) && is_unicast(&ip))
            net->dns[net->n_dns++] = ip;
    }
    if (net->n_dns == 0 && net->v4.routed)
        net->dns[net->n_dns++] = net->v4.gateway;
    else if (net->n_dns == 0 && net->v6.routed)
        net->dns[net->n_dns++] = net->v6.gateway;
}

/* Answers of more than 512 bytes are asked for in any case. */
static bool is_passed_on(const char *option, size_t len)
{
    return len != 5 || memcmp(option, "edns0", 5) != 0;
}

void sm_guest_net_resolv_text(const struct sm_guest_net *net, const struct sm_resolv_conf *host,
    char text[SM_RESOLV_TEXT_MAX + 1])
{
    _Static_assert(
        SM_RESOLV_TEXT_MAX >= sizeof("search \noptions edns0 \n") + 2 * SM_RESOLV_WORDS +
                                  SM_GUEST_NET_DNS * (sizeof("nameserver ") + SM_IP_TEXT),
        "all of it fits");
    char addr[SM_IP_TEXT];
    int n = *host->search ? sprintf(text, "search %s\n", host->search) : 0;
    for (size_t i = 0; i < net->n_dns; i++)
        n += sprintf(text + n, "nameserver %s\n", sm_ip_format(&net->dns[i], addr));
    n += sprintf(text + n, "options edns0");
    for (const char *option = host->options; *option;) {
        size_t len = strcspn(option, " ");
        if (is_passed_on(option, len))
            n += sprintf(text + n, " %.*s", (int)len, option);
        option += len + (option[len] == ' ');
    }
    strcpy(text + n, "\n");
}
