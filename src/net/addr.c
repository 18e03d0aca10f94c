/* Addresses: text, ranges and what they are. See addr.h. The tables are IANA's registries of
 * special ranges, with the RFC of each; what is in none of them and outside of 2000::/3 counts as
 * private: a range that is assigned tomorrow is closed until somebody looks. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <string.h>

#include "util/bytes.h"

static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

struct range {
    uint8_t net[16];
    uint8_t prefix;
};

/* IANA IPv4 special-purpose address registry, and multicast. */
static const struct range private_v4[] = {
    {{10}, 8},            /* RFC 1918 */
    {{100, 64}, 10},      /* shared by carrier-grade NAT, RFC 6598 */
    {{169, 254}, 16},     /* link-local; the metadata service of clouds */
    {{172, 16}, 12},      /* RFC 1918 */
    {{192, 0, 0}, 24},    /* IETF protocol assignments */
    {{192, 0, 2}, 24},    /* documentation */
    {{192, 88, 99}, 24},  /* 6to4 relays, deprecated */
    {{192, 168}, 16},     /* RFC 1918 */
    {{198, 18}, 15},      /* benchmarking */
    {{198, 51, 100}, 24}, /* documentation */
    {{203, 0, 113}, 24},  /* documentation */
    {{224}, 4},           /* multicast */
    {{240}, 4},           /* reserved, limited broadcast */
};

/* What is not global inside of 2000::/3. Everything outside of 2000::/3 is private to us, except
 * the NAT64 prefix, which is judged by what it embeds. */
static const struct range private_v6[] = {
    {{0x20, 0x01, 0x00, 0x01}, 32}, /* protocol assignments, 2001:1::/32 */
    {{0x20, 0x01, 0x00, 0x02}, 32}, /* benchmarking */
    {{0x20, 0x01, 0x00, 0x10}, 28}, /* ORCHID */
    {{0x20, 0x01, 0x00, 0x20}, 28}, /* ORCHIDv2 */
    {{0x20, 0x01, 0x0d, 0xb8}, 32}, /* documentation */
    {{0x3f, 0xff, 0x00}, 20},       /* documentation */
};

static const struct range global_v6 = {{0x20}, 3};
static const struct range v4_compatible = {{0}, 96};
static const struct range v4_translated = {{[8] = 0xff, [9] = 0xff}, 96};
static const struct range nat64 = {{0x00, 0x64, 0xff, 0x9b}, 96};
static const struct range six_to_four = {{0x20, 0x02}, 16};
static const struct range teredo = {{0x20, 0x01, 0x00, 0x00}, 32};

static bool prefix_equal(const uint8_t *a, const uint8_t *b, unsigned prefix)
{
    unsigned bytes = prefix / 8;
    if (memcmp(a, b, bytes) != 0)
        return false;
    unsigned bits = prefix % 8;
    return bits == 0 || ((a[bytes] ^ b[bytes]) >> (8 - bits)) == 0;
}

static bool in_range(const struct sm_ip *ip, const struct range *range)
{
    return prefix_equal(ip->b, range->net, range->prefix);
}

struct sm_ip sm_ip_from_v4(uint32_t host_order)
{
    struct sm_ip ip;
    memcpy(ip.b, v4_mapped, sizeof(v4_mapped));
    uint32_t be = htobe32(host_order);
    memcpy(ip.b + 12, &be, sizeof(be));
    return ip;
}

bool sm_ip_is_v4(const struct sm_ip *ip)
{
    return memcmp(ip->b, v4_mapped, sizeof(v4_mapped)) == 0;
}

bool sm_ip_equal(const struct sm_ip *a, const struct sm_ip *b)
{
    return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

bool sm_ip_in_prefix(const struct sm_ip *ip, const struct sm_ip *net, unsigned prefix)
{
    return prefix_equal(ip->b, net->b, SM_MIN(prefix, 128u));
}

static struct sm_ip v4_at(const uint8_t *p, uint8_t invert)
{
    struct sm_ip ip;
    memcpy(ip.b, v4_mapped, sizeof(v4_mapped));
    for (int i = 0; i < 4; i++)
        ip.b[12 + i] = p[i] ^ invert;
    return ip;
}

size_t sm_ip_embedded(const struct sm_ip *ip, struct sm_ip out[2])
{
    if (sm_ip_is_v4(ip))
        return 0;
    if (in_range(ip, &v4_compatible) || in_range(ip, &v4_translated) || in_range(ip, &nat64)) {
        out[0] = v4_at(ip->b + 12, 0);
        return 1;
    }
    if (in_range(ip, &six_to_four)) {
        out[0] = v4_at(ip->b + 2, 0);
        return 1;
    }
    if (in_range(ip, &teredo)) {
        out[0] = v4_at(ip->b + 4, 0);     /* the server */
        out[1] = v4_at(ip->b + 12, 0xff); /* the client, written inverted */
        return 2;
    }
    return 0;
}

static enum sm_ip_class classify_v4(const uint8_t *v4)
{
    if (v4[0] == 127 || v4[0] == 0)
        return SM_IP_THIS_HOST;
    for (size_t i = 0; i < SM_ARRAY_LEN(private_v4); i++) {
        if (prefix_equal(v4, private_v4[i].net, private_v4[i].prefix))
            return SM_IP_PRIVATE;
    }
    return SM_IP_GLOBAL;
}

static enum sm_ip_class classify_v6(const struct sm_ip *ip)
{
    static const struct sm_ip unspecified = {{0}};
    static const struct sm_ip loopback = {{[15] = 1}};
    if (sm_ip_equal(ip, &unspecified) || sm_ip_equal(ip, &loopback))
        return SM_IP_THIS_HOST;
    if (in_range(ip, &nat64))
        return SM_IP_GLOBAL;
    if (!in_range(ip, &global_v6))
        return SM_IP_PRIVATE;
    for (size_t i = 0; i < SM_ARRAY_LEN(private_v6); i++) {
        if (in_range(ip, &private_v6[i]))
            return SM_IP_PRIVATE;
    }
    return SM_IP_GLOBAL;
}

enum sm_ip_class sm_ip_classify(const struct sm_ip *ip)
{
    if (sm_ip_is_v4(ip))
        return classify_v4(ip->b + 12);
    enum sm_ip_class worst = classify_v6(ip);
    struct sm_ip inner[2];
    size_t n = sm_ip_embedded(ip, inner);
    for (size_t i = 0; i < n; i++)
        worst = SM_MAX(worst, classify_v4(inner[i].b + 12));
    return worst;
}

bool sm_ip_parse(const char *text, struct sm_ip *ip)
{
    struct in_addr v4;
    if (inet_pton(AF_INET, text, &v4) == 1) {
        *ip = sm_ip_from_v4(be32toh(v4.s_addr));
        return true;
    }
    return inet_pton(AF_INET6, text, ip->b) == 1;
}

const char *sm_ip_format(const struct sm_ip *ip, char text[SM_IP_TEXT])
{
    if (sm_ip_is_v4(ip))
        inet_ntop(AF_INET, ip->b + 12, text, SM_IP_TEXT);
    else
        inet_ntop(AF_INET6, ip->b, text, SM_IP_TEXT);
    return text;
}
