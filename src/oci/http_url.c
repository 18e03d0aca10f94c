/* URLs, as libcurl's own parser reads them: what is decided here is then true of the request, too. */
#include "oci/http_url.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

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
