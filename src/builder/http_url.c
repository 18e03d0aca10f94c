/* URLs, as libcurl's own parser reads them: what is decided here is then true of the request,
 * too. */
#include "builder/http_url.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "util/bytes.h"

bool sm_host_is_local(const char *host)
{
    if (strncmp(host, "[::1]", 5) == 0)
        return host[5] == '\0' || host[5] == ':';
    size_t n = strcspn(host, ":");
    if (n == 9 && strncasecmp(host, "localhost", 9) == 0)
        return true;
    char text[INET_ADDRSTRLEN];
    struct in_addr addr;
    if (n >= sizeof(text))
        return false;
    memcpy(text, host, n);
    text[n] = '\0';
    return inet_pton(AF_INET, text, &addr) == 1 && ntohl(addr.s_addr) >> 24 == 127;
}

static int nearness_of_v4(uint32_t ip)
{
    static const struct {
        uint32_t net;
        int bits, nearness;
    } nets[] = {
        {0x00000000, 8, SM_NEAREST}, /* 0.0.0.0 is this machine for connect(2) */
        {0x7f000000, 8, SM_NEAREST},
        {0xa9fe0000, 16, SM_NEAREST},
        {0x0a000000, 8, 1},
        {0x64400000, 10, 1},
        {0xac100000, 12, 1},
        {0xc0a80000, 16, 1},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(nets); i++)
        if (ip >> (32 - nets[i].bits) == nets[i].net >> (32 - nets[i].bits))
            return nets[i].nearness;
    return 0;
}

int sm_address_nearness(const struct sockaddr *address)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    if (address->sa_family == AF_INET) {
        memcpy(&v4, address, sizeof(v4));
        return nearness_of_v4(ntohl(v4.sin_addr.s_addr));
    }
    if (address->sa_family != AF_INET6)
        return SM_NEAREST;
    memcpy(&v6, address, sizeof(v6));
    const struct in6_addr *ip = &v6.sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(ip) || (IN6_IS_ADDR_V4COMPAT(ip) && !IN6_IS_ADDR_LOOPBACK(ip)))
        return nearness_of_v4(ntohl(ip->s6_addr32[3]));
    if (IN6_IS_ADDR_UNSPECIFIED(ip) || IN6_IS_ADDR_LOOPBACK(ip) || IN6_IS_ADDR_LINKLOCAL(ip))
        return SM_NEAREST;
    return (ip->s6_addr[0] & 0xfe) == 0xfc;
}

int sm_ip_nearness(const char *ip)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, ip, &v4.sin_addr) == 1)
        return sm_address_nearness((const struct sockaddr *)&v4);
    if (inet_pton(AF_INET6, ip, &v6.sin6_addr) == 1)
        return sm_address_nearness((const struct sockaddr *)&v6);
    return 0;
}

bool sm_url_is_tls(const char *url)
{
    return strncasecmp(url, "https:", 6) == 0;
}

bool sm_url_is_local(const char *url)
{
    CURLU *u = curl_url();
    char *host = NULL;
    bool local = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
                 curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK && sm_host_is_local(host);
    curl_free(host);
    curl_url_cleanup(u);
    return local;
}

char *sm_url_origin(const char *url)
{
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL, *text = NULL;
    if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
        asprintf(&text, "%s://%s:%s", scheme, host, port) < 0)
        text = NULL;
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    return text;
}

void sm_url_set_proxy(CURL *curl, const char *url)
{
    const char *lower = getenv("http_proxy"), *upper = getenv("HTTP_PROXY");
    if (sm_url_is_local(url))
        curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    else if (!sm_url_is_tls(url) && !(lower && *lower) && upper && *upper)
        curl_easy_setopt(curl, CURLOPT_PROXY, upper);
}
