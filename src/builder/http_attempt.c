/* libcurl's callbacks and options. See http_attempt.h. */
#include "builder/http_attempt.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "builder/http_url.h"
#include "util/bytes.h"
#include "util/error.h"

enum {
    MAX_HEADERS = 64 << 10,
    MAX_ERROR_BODY = 64 << 10,
    /* By the clock: of a server that is silent nothing else is known. What came while a busy host
     * kept us from reading is in the socket and counts when we look; an attempt that ends too early
     * for that is followed by others. */
    CONNECT_TIMEOUT_S = 15,
    STALL_BYTES = 100,     /* a second; less for the session's stall_s seconds is a stall */
    TOTAL_TIMEOUT_S = 120, /* of answers that are small */
};

/* ---- callbacks ------------------------------------------------------------------------------- */

static void take_header(char *to, size_t room, const char *value, size_t len)
{
    if (len < room) {
        memcpy(to, value, len);
        to[len] = '\0';
    }
}

static size_t on_header(char *data, size_t unit, size_t size, void *arg)
{
    struct sm_http_attempt *a = arg;
    size *= unit;
    a->headers += size;
    if (a->headers > MAX_HEADERS)
        return 0;
    if (size > 5 && memcmp(data, "HTTP/", 5) == 0) { /* the next of several answers */
        a->challenge = (struct sm_challenge){0};
        *a->content_type = *a->digest = '\0';
        a->at = 0;
        return size;
    }
    const char *colon = memchr(data, ':', size);
    if (!colon)
        return size;
    size_t name = (size_t)(colon - data);
    const char *value = colon + 1, *end = data + size;
    while (value < end && strchr(" \t", *value))
        value++;
    while (end > value && strchr(" \t\r\n", end[-1]))
        end--;
    size_t len = (size_t)(end - value);
    if (name == 12 && strncasecmp(data, "Content-Type", 12) == 0)
        take_header(a->content_type, sizeof(a->content_type), value, len);
    else if (name == 21 && strncasecmp(data, "Docker-Content-Digest", 21) == 0)
        take_header(a->digest, sizeof(a->digest), value, len);
    else if (name == 16 && strncasecmp(data, "WWW-Authenticate", 16) == 0) {
        char text[2048];
        *text = '\0';
        take_header(text, sizeof(text), value, len);
        if (!a->challenge.bearer)
            sm_challenge_parse(&a->challenge, text);
    } else if (name == 13 && strncasecmp(data, "Content-Range", 13) == 0) {
        unsigned long long first;
        char text[80] = "";
        take_header(text, sizeof(text), value, len);
        if (sscanf(text, "bytes %llu-", &first) == 1)
            a->at = first;
    }
    return size;
}

static size_t on_body(char *data, size_t unit, size_t size, void *arg)
{
    struct sm_http_attempt *a = arg;
    size *= unit;
    curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &a->status);
    if (a->status != 200 && a->status != 206) {
        size_t n = SM_MIN(size, sizeof(a->error_body) - 1 - a->error_len);
        memcpy(a->error_body + a->error_len, data, n);
        a->error_len += n;
        a->other_len += size;
        return a->other_len > MAX_ERROR_BODY ? 0 : size;
    }
    size_t skip = 0;
    if (a->from) {
        if (a->at > *a->from) {
            a->wrong_range = true;
            return 0;
        }
        skip = (size_t)SM_MIN((uint64_t)size, *a->from - a->at);
    }
    a->at += size;
    if (skip == size)
        return size;
    a->rc = a->sink(a->arg, data + skip, size - skip, a->err);
    if (a->rc == 0 && a->from)
        *a->from += size - skip;
    return a->rc ? 0 : size;
}

static int on_progress(void *arg, curl_off_t dt, curl_off_t dn, curl_off_t ut, curl_off_t un)
{
    const struct sm_http_attempt *a = arg;
    return a->http->stop;
}

/* Makes the socket, unless the place is nearer to us than it may be. Of a proxy this sees the
 * proxy, which is as near for the registry and for the places that it names. */
static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    struct sm_http_attempt *a = arg;
    a->too_near = sm_address_nearness(&to->addr) > a->nearest;
    return a->too_near ? CURL_SOCKET_BAD
                       : socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* ---- one attempt ----------------------------------------------------------------------------- */

/* A handle for one attempt. On one that is used again Debian 12's libcurl (7.88) reads memory that
 * it has freed when an answer's first header looks like the continuation of another (curl's issue
 * 11101): a registry must not have that in its hands. The price is a connection that is not used
 * again, within one request: behind a 401, which a session sees once. */
int sm_http_renew(CURL **curl)
{
    curl_easy_cleanup(*curl);
    *curl = curl_easy_init();
    return *curl ? 0 : -SM_ENOMEM;
}

static void set_common(struct sm_http_attempt *a, const char *url, bool small)
{
    struct sm_http *h = a->http;
    CURL *c = a->curl;
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(
        c, CURLOPT_PROTOCOLS_STR, sm_http_plain_allowed(h, url) ? "http,https" : "https");
    curl_easy_setopt(c, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    sm_url_set_proxy(c, url);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c, CURLOPT_HTTP_CONTENT_DECODING, 0L);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "supermachine/" SM_VERSION);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)STALL_BYTES);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)h->stall_s);
    if (small)
        curl_easy_setopt(c, CURLOPT_TIMEOUT, (long)TOTAL_TIMEOUT_S);
    curl_easy_setopt(c, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, a);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, a);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, a);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    if (h->tls_ca)
        curl_easy_setopt(c, CURLOPT_CAINFO, h->tls_ca);
    if (h->insecure) {
        curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
    }
}

static int add_line(struct curl_slist **list, const char *name, const char *value, sm_error *err)
{
    auto_free char *line = NULL;
    if (asprintf(&line, "%s: %s", name, value) < 0) {
        line = NULL;
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    struct curl_slist *grown = curl_slist_append(*list, line);
    explicit_bzero(line, strlen(line));
    if (!grown)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    *list = grown;
    return 0;
}

int sm_http_try(struct sm_http_attempt *a, const char *url, const char *accept,
    const char *authorization, const char *post)
{
    struct curl_slist *lines = NULL;
    int rc = 0;
    set_common(a, url, a->small);
    if (accept)
        rc = add_line(&lines, "Accept", accept, a->err);
    if (rc == 0 && authorization)
        rc = add_line(&lines, "Authorization", authorization, a->err);
    if (post)
        curl_easy_setopt(a->curl, CURLOPT_POSTFIELDS, post);
    char range[32];
    if (!a->small && *a->from > 0) {
        snprintf(range, sizeof(range), "%llu-", (unsigned long long)*a->from);
        curl_easy_setopt(a->curl, CURLOPT_RANGE, range);
    }
    if (rc == 0) {
        curl_easy_setopt(a->curl, CURLOPT_HTTPHEADER, lines);
        rc = (int)curl_easy_perform(a->curl);
        curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &a->status);
    }
    curl_slist_free_all(lines);
    return rc;
}
