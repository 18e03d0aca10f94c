/*
 * Requests by libcurl. A request goes through a loop until it has an answer that means something:
 *
 * - 401: the challenge is answered once (a token is fetched, or basic credentials are used); what was
 *   learned is kept in the session for the requests to come. A second 401 is the end.
 * - Redirects are followed here and not by libcurl, so that it is seen here what goes with them: the
 *   Authorization header is only ever sent to the origin (scheme, host, port) of the registry. From
 *   https nothing leads to http.
 * - 408, 429, 5xx and broken connections are tried again, after what Retry-After says or a time that
 *   doubles. Bytes that came count: the next attempt asks for the rest, and who delivers a fair number of bytes each
 *   time is not given up on.
 *
 * Everything that a server sends is bounded: headers, bodies of answers that are not what was asked for,
 * redirects, time without progress. What a sink takes is bounded by the sink.
 *
 * Secrets are in memory and in request headers only: never in errors, arguments, URLs that are shown.
 */
#include "builder/http.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "builder/http_auth.h"
#include "builder/http_url.h"
#include "util/bytes.h"
#include "util/error.h"

enum {
    MAX_HEADERS = 64 << 10,
    MAX_ERROR_BODY = 64 << 10,
    MAX_TOKEN_BODY = 256 << 10,
    MAX_REDIRECTS = 5,
    PATIENCE = 24, /* what attempts in a row may cost that do not bring FAIR_SHARE bytes */
    COST_OF_NOTHING = 4,
    COST_OF_LITTLE = 1,
    FAIR_SHARE = 64 << 10,
    FIRST_WAIT_MS = 300,
    MAX_RETRY_AFTER_S = 120,
    /* By the clock: of a server that is silent nothing else is known. What came while a busy host kept us from reading is in
     * the socket and counts when we look; an attempt that ends too early for that is followed by others. */
    CONNECT_TIMEOUT_S = 15,
    STALL_S = 30,
    STALL_BYTES = 100,     /* a second; less for STALL_S seconds is a stall */
    TOTAL_TIMEOUT_S = 120, /* of answers that are small */
};

struct sm_http {
    char *host, *repository;
    char *user, *password, *identity_token, *tls_ca;
    bool insecure;
    uint64_t stall_s;
    pthread_mutex_t lock; /* of what follows */
    bool plain;           /* the registry does not speak TLS */
    char *authorization;  /* value of the header, or NULL */
    unsigned auth_serial; /* counts changes of it */
    _Atomic bool stop;
};

/* One attempt, and what came of it. */
struct attempt {
    struct sm_http *http;
    CURL *curl;
    sm_http_sink *sink; /* for 200 and 206 */
    void *arg;
    uint64_t *from; /* the byte that the sink wants next; NULL: all */
    uint64_t at;    /* the byte that comes next */
    bool small;     /* no ranges are asked for, and there is a bound on the whole time */
    int nearest;    /* that the place may be to us */
    bool too_near;  /* it is nearer */
    sm_error *err;
    int rc; /* of the sink */
    size_t headers;
    long status;
    bool wrong_range;
    struct sm_challenge challenge;
    char content_type[128], digest[128];
    char error_body[512];
    size_t error_len, other_len;
};

/* ---- callbacks --------------------------------------------------------------------------------- */

static void take_header(char *to, size_t room, const char *value, size_t len)
{
    if (len < room) {
        memcpy(to, value, len);
        to[len] = '\0';
    }
}

static size_t on_header(char *data, size_t unit, size_t size, void *arg)
{
    struct attempt *a = arg;
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
    struct attempt *a = arg;
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
    const struct attempt *a = arg;
    return a->http->stop;
}

/* Makes the socket, unless the place is nearer to us than it may be. Of a proxy this sees the proxy, which is as near
 * for the registry and for the places that it names. */
static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    struct attempt *a = arg;
    a->too_near = sm_address_nearness(&to->addr) > a->nearest;
    return a->too_near ? CURL_SOCKET_BAD
                       : socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* ---- one attempt --------------------------------------------------------------------------------- */

/* Plain HTTP is for this machine, and for who said that it will do. That a registry is here says nothing about the
 * places that it sends us to. */
static bool plain_allowed(const struct sm_http *h, const char *url)
{
    return h->insecure || sm_url_is_local(url);
}

/* A handle for one attempt. On one that is used again Debian 12's libcurl (7.88) reads memory that it has freed when an answer's
 * first header looks like the continuation of another (curl's issue 11101): a registry must not have that in its hands. The
 * price is a connection that is not used again, within one request: behind a 401, which a session sees once. */
static int renew(CURL **curl)
{
    curl_easy_cleanup(*curl);
    *curl = curl_easy_init();
    return *curl ? 0 : -SM_ENOMEM;
}

static void set_common(struct attempt *a, const char *url, bool small)
{
    struct sm_http *h = a->http;
    CURL *c = a->curl;
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, plain_allowed(h, url) ? "http,https" : "https");
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

/* The CURLcode, or a negative sm_code where the request could not even be made. */
static int run(struct attempt *a, const char *url, const char *accept, const char *authorization,
    const char *post)
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

/* ---- authentication ------------------------------------------------------------------------------ */

struct body {
    char *data;
    size_t size;
};

static int take_body(void *arg, const void *data, size_t size, sm_error *err)
{
    struct body *b = arg;
    if (b->size + size > MAX_TOKEN_BODY)
        return sm_error_set(err, SM_ELIMIT, "the token server's answer is too long");
    char *grown = realloc(b->data, b->size + size + 1);
    if (!grown)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    b->data = grown;
    memcpy(b->data + b->size, data, size);
    b->size += size;
    return 0;
}

static int append_parameter(
    CURL *curl, char **text, char separator, const char *name, const char *value)
{
    char *escaped = curl_easy_escape(curl, value, 0), *grown = NULL;
    int n = escaped ? asprintf(&grown, "%s%c%s=%s", *text, separator, name, escaped) : -1;
    curl_free(escaped);
    if (n < 0)
        return -SM_ENOMEM;
    free(*text);
    *text = grown;
    return 0;
}

static const char nearer[] = "a place that is nearer to this machine than itself";

/* Why we do not go to a place that the registry names (for a token, by a redirect); NULL: we do. Requests of ours
 * must not become the registry's way to services of this machine. Names that only resolve to such a place are found
 * when the connection is made (on_socket). */
static const char *place_refused(const struct sm_http *h, const char *url)
{
    bool tls = sm_url_is_tls(url);
    if (!tls && strncasecmp(url, "http:", 5) != 0)
        return "what is not HTTP";
    if (sm_url_is_local(url) && !sm_host_is_local(h->host))
        return "this machine";
    return tls || plain_allowed(h, url) ? NULL : "a place without TLS";
}

/* GET with basic credentials, or, with an identity token, the OAuth2 POST. */
static int ask_for_token(struct sm_http *h, CURL *curl, const struct sm_challenge *ch, int nearest,
    char **token, sm_error *err)
{
    const char *refused = place_refused(h, ch->realm);
    if (refused)
        return sm_error_set(
            err, SM_EPROTOCOL, "the registry %s sends us for a token to %s", h->host, refused);
    auto_free char *fallback = NULL;
    if (asprintf(&fallback, "repository:%s:pull", h->repository) < 0) {
        fallback = NULL;
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    const char *scope = *ch->scope ? ch->scope : fallback;
    char *url = strdup(ch->realm), *post = NULL;
    int rc = url ? 0 : -SM_ENOMEM;
    if (h->identity_token) {
        post = strdup("grant_type=refresh_token");
        rc = post ? append_parameter(curl, &post, '&', "service", ch->service) : -SM_ENOMEM;
        if (rc == 0 && h->repository)
            rc = append_parameter(curl, &post, '&', "scope", scope);
        if (rc == 0)
            rc = append_parameter(curl, &post, '&', "client_id", "supermachine");
        if (rc == 0)
            rc = append_parameter(curl, &post, '&', "refresh_token", h->identity_token);
    } else {
        if (rc == 0 && *ch->service)
            rc = append_parameter(curl, &url, strchr(url, '?') ? '&' : '?', "service", ch->service);
        if (rc == 0 && h->repository)
            rc = append_parameter(curl, &url, strchr(url, '?') ? '&' : '?', "scope", scope);
    }
    auto_free char *basic = NULL;
    if (rc == 0 && h->user && !h->identity_token) {
        auto_free char *pair = sm_basic_credentials(h->user, h->password ? h->password : "");
        if (!pair || asprintf(&basic, "Basic %s", pair) < 0) {
            basic = NULL;
            rc = -SM_ENOMEM;
        }
    }
    struct body body = {0};
    struct attempt a = {
        .http = h, .sink = take_body, .arg = &body, .small = true, .nearest = nearest, .err = err};
    if (rc || renew(&a.curl) != 0) {
        rc = sm_error_set(err, SM_ENOMEM, "out of memory");
    } else {
        rc = run(&a, url, NULL, basic, post);
        if (a.rc)
            rc = a.rc;
        else if (rc > 0 && a.too_near)
            rc = sm_error_set(
                err, SM_EPROTOCOL, "the registry %s sends us for a token to %s", h->host, nearer);
        else if (rc > 0)
            rc = sm_error_set(err, h->stop ? SM_ECANCELLED : SM_ENETWORK,
                "cannot get a token for the registry %s: %s", h->host,
                curl_easy_strerror((CURLcode)rc));
        else if (rc == 0 && (a.status == 401 || a.status == 403))
            rc = sm_error_set(err, SM_EPERM, "the registry %s does not accept the %s", h->host,
                h->user || h->identity_token ? "credentials: log in again"
                                             : "anonymous access: log in");
        else if (rc == 0 && a.status != 200)
            rc = sm_error_set(err, SM_ENETWORK, "the token server of the registry %s answers %ld",
                h->host, a.status);
        if (rc == 0)
            rc = sm_token_parse(body.data ? body.data : "", body.size, token, err);
    }
    curl_easy_cleanup(a.curl);
    free(body.data);
    free(url);
    if (post)
        explicit_bzero(post, strlen(post));
    free(post);
    return rc;
}

/* Answers a challenge that came from a place as near as `nearest`. `serial` is that of the authorization that was
 * refused: where another thread has replaced it meanwhile there is nothing to do. */
static int authenticate(struct sm_http *h, CURL *curl, const struct sm_challenge *ch, int nearest,
    unsigned serial, sm_error *err)
{
    int rc = 0;
    pthread_mutex_lock(&h->lock);
    if (h->auth_serial == serial) {
        auto_free char *secret = NULL;
        char *line = NULL;
        if (ch->bearer)
            rc = ask_for_token(h, curl, ch, nearest, &secret, err);
        else if (ch->basic && h->user && h->password)
            secret = sm_basic_credentials(h->user, h->password);
        else
            rc = sm_error_set(err, SM_EPERM, "the registry %s asks for %s: log in", h->host,
                ch->basic ? "a user and password" : "an authentication that we do not know");
        if (rc == 0 &&
            (!secret || asprintf(&line, "%s %s", ch->bearer ? "Bearer" : "Basic", secret) < 0))
            rc = sm_error_set(err, SM_ENOMEM, "out of memory");
        if (rc == 0) {
            free(h->authorization);
            h->authorization = line;
            h->auth_serial++;
        }
    }
    pthread_mutex_unlock(&h->lock);
    return rc;
}

/* ---- requests ------------------------------------------------------------------------------------ */

struct request {
    struct sm_http *http;
    struct sm_http_get *get;
    CURL *curl;
    char *url;      /* where it is now */
    bool at_origin; /* the URL is the registry's */
    int nearness; /* of the registry: of where its last answer came from, as sm_address_nearness has it */
    unsigned redirects, auths;
    unsigned spent;   /* of PATIENCE */
    unsigned in_vain; /* attempts in a row that brought nothing */
    sm_error *err;
};

static char *origin_url(struct sm_http *h, const char *path)
{
    char *url = NULL;
    pthread_mutex_lock(&h->lock);
    bool plain = h->plain;
    pthread_mutex_unlock(&h->lock);
    const char *at = strcmp(h->host, "docker.io") == 0 ? "registry-1.docker.io" : h->host;
    int n =
        path ? asprintf(&url, "%s://%s/v2/%s/%s", plain ? "http" : "https", at, h->repository, path)
             : asprintf(&url, "%s://%s/v2/", plain ? "http" : "https", at);
    return n < 0 ? NULL : url;
}

static int restart(struct request *r)
{
    free(r->url);
    r->url = origin_url(r->http, r->get->path);
    r->at_origin = true;
    r->redirects = 0;
    return r->url ? 0 : sm_error_set(r->err, SM_ENOMEM, "out of memory");
}

static int follow(struct request *r)
{
    char *to = NULL;
    curl_easy_getinfo(r->curl, CURLINFO_REDIRECT_URL, &to);
    if (!to)
        return sm_error_set(
            r->err, SM_EPROTOCOL, "the registry %s redirects us to nowhere", r->http->host);
    if (++r->redirects > MAX_REDIRECTS)
        return sm_error_set(r->err, SM_EPROTOCOL,
            "the registry %s redirects us more than %d times for %s", r->http->host, MAX_REDIRECTS,
            r->get->what);
    const char *refused = place_refused(r->http, to);
    if (!refused && sm_url_is_tls(r->url) && !sm_url_is_tls(to))
        refused = "a place without TLS";
    if (refused)
        return sm_error_set(
            r->err, SM_EPROTOCOL, "the registry %s redirects us to %s", r->http->host, refused);
    auto_free char *home = origin_url(r->http, r->get->path);
    auto_free char *ours = home ? sm_url_origin(home) : NULL;
    auto_free char *theirs = sm_url_origin(to);
    char *copy = strdup(to);
    if (!ours || !copy) {
        free(copy);
        return sm_error_set(r->err, SM_ENOMEM, "out of memory");
    }
    r->at_origin = theirs && strcmp(ours, theirs) == 0;
    free(r->url);
    r->url = copy;
    return 0;
}

static void wait_ms(struct sm_http *h, long ms)
{
    for (; ms > 0 && !h->stop; ms -= 50)
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
}

/* Waits before another attempt, or gives up with what went wrong. What took long (a timeout) costs twice. */
static int try_again(struct request *r, uint64_t before, bool timeout, int rc)
{
    uint64_t got = r->get->from - before;
    if (got >= FAIR_SHARE)
        r->spent = 0;
    r->spent += (got ? COST_OF_LITTLE : COST_OF_NOTHING) * (timeout ? 2 : 1);
    curl_off_t asked = 0;
    curl_easy_getinfo(r->curl, CURLINFO_RETRY_AFTER, &asked);
    if (r->spent >= PATIENCE || asked > MAX_RETRY_AFTER_S)
        return rc;
    r->in_vain = got ? 0 : r->in_vain + 1;
    long ms = (long)FIRST_WAIT_MS << (r->in_vain ? r->in_vain - 1 : 0);
    wait_ms(r->http, SM_MAX(ms, (long)asked * 1000));
    return restart(r);
}

static bool worth_retrying(int code)
{
    switch (code) {
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

/* A connection that failed: plain HTTP where that is allowed, another attempt, or the end. */
static int broken(struct request *r, const struct attempt *a, uint64_t before, int code)
{
    struct sm_http *h = r->http;
    if (h->stop)
        return sm_error_set(r->err, SM_ECANCELLED, "the download was cancelled");
    if (code == CURLE_WRITE_ERROR && a->wrong_range)
        return sm_error_set(r->err, SM_EPROTOCOL,
            "the registry %s sends another part of %s than asked for", h->host, r->get->what);
    if (code == CURLE_WRITE_ERROR)
        return sm_error_set(
            r->err, SM_ELIMIT, "the registry %s sends too much for %s", h->host, r->get->what);
    if (code == CURLE_SSL_CONNECT_ERROR && plain_allowed(h, r->url) && !h->plain && r->at_origin) {
        pthread_mutex_lock(&h->lock);
        h->plain = true;
        pthread_mutex_unlock(&h->lock);
        return restart(r);
    }
    if (a->too_near)
        return sm_error_set(
            r->err, SM_EPROTOCOL, "the registry %s redirects us to %s", h->host, nearer);
    long proxy = 0;
    curl_easy_getinfo(r->curl, CURLINFO_HTTP_CONNECTCODE, &proxy);
    bool proxy_refuses = proxy >= 300;
    int rc;
    if (proxy_refuses)
        rc = sm_error_set(r->err, SM_ENETWORK,
            "the proxy answers %ld for a connection to the registry %s", proxy, h->host);
    else
        rc = sm_error_set(r->err, SM_ENETWORK, "cannot get %s from the registry %s: %s%s",
            r->get->what, h->host, curl_easy_strerror((CURLcode)code),
            code == CURLE_PEER_FAILED_VERIFICATION ? " (is its CA to be named by --tls-ca?)" : "");
    if (!worth_retrying(code) || (proxy_refuses && proxy < 500))
        return rc;
    return try_again(r, before, code == CURLE_OPERATION_TIMEDOUT, rc);
}

static int refused(struct request *r, const struct attempt *a)
{
    const char *host = r->http->host, *what = r->get->what;
    switch (a->status) {
    case 404:
        return sm_error_set(r->err, SM_ENOTFOUND, "the registry %s does not have %s", host, what);
    case 401:
    case 403:
        return sm_error_set(r->err, SM_EPERM, "the registry %s refuses access to %s%s", host, what,
            r->http->user ? "" : ": log in if it is private, check the name otherwise");
    default:
        return sm_error_set(r->err,
            a->status >= 500 || a->status == 429 ? SM_ENETWORK : SM_EPROTOCOL,
            "the registry %s answers %ld for %s", host, a->status, what);
    }
}

/* Looks at the answer; 1: there is to be another attempt. */
static int judge(struct request *r, const struct attempt *a, uint64_t before, unsigned serial)
{
    int rc;
    switch (a->status) {
    case 200:
    case 206:
        snprintf(r->get->content_type, sizeof(r->get->content_type), "%s", a->content_type);
        snprintf(r->get->digest, sizeof(r->get->digest), "%s", a->digest);
        return 0;
    case 301:
    case 302:
    case 303:
    case 307:
    case 308:
        rc = follow(r);
        return rc ? rc : 1;
    case 401:
        if (!r->at_origin || r->auths++ > 0)
            return refused(r, a);
        rc = authenticate(r->http, r->curl, &a->challenge, r->nearness, serial, r->err);
        return rc ? rc : 1;
    case 408:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
        rc = try_again(r, before, false, refused(r, a));
        return rc ? rc : 1;
    case 416: /* nothing behind what we have */
        return a->small ? refused(r, a) : 0;
    default:
        return refused(r, a);
    }
}

/* How near the place is that has answered. Addresses that were only tried say nothing: what a registry's name resolves
 * to is up to the registry. */
static int nearness_of_answer(CURL *curl)
{
    char *ip = NULL;
    curl_easy_getinfo(curl, CURLINFO_PRIMARY_IP, &ip);
    return ip ? sm_ip_nearness(ip) : 0;
}

static int request(struct request *r)
{
    struct sm_http *h = r->http;
    int rc = restart(r);
    while (rc == 0) {
        if (renew(&r->curl) != 0)
            return sm_error_set(r->err, SM_ENOMEM, "out of memory");
        struct attempt a = {.http = h,
            .curl = r->curl,
            .sink = r->get->sink,
            .arg = r->get->arg,
            .from = &r->get->from,
            .small = r->get->accept,
            .nearest = r->at_origin ? SM_NEAREST : r->nearness,
            .err = r->err};
        uint64_t before = r->get->from;
        pthread_mutex_lock(&h->lock);
        unsigned serial = h->auth_serial;
        auto_free char *authorization =
            r->at_origin && h->authorization ? strdup(h->authorization) : NULL;
        pthread_mutex_unlock(&h->lock);
        int code = run(&a, r->url, r->get->accept, authorization, NULL);
        if (authorization)
            explicit_bzero(authorization, strlen(authorization));
        if (a.rc || code < 0)
            return a.rc ? a.rc : code;
        if (code) {
            rc = broken(r, &a, before, code);
            continue;
        }
        if (r->at_origin)
            r->nearness = nearness_of_answer(r->curl);
        rc = judge(r, &a, before, serial);
        if (rc <= 0)
            return rc;
        rc = 0;
    }
    return rc;
}

int sm_http_get(struct sm_http *http, struct sm_http_get *get, sm_error *err)
{
    struct request r = {.http = http, .get = get, .err = err};
    int rc = request(&r);
    curl_easy_cleanup(r.curl);
    free(r.url);
    return rc;
}

static int ignore_body(void *arg, const void *data, size_t size, sm_error *err)
{
    size_t *total = arg;
    *total += size;
    return *total > MAX_ERROR_BODY
               ? sm_error_set(err, SM_ELIMIT, "the registry's answer is too long")
               : 0;
}

int sm_http_check_login(struct sm_http *http, sm_error *err)
{
    size_t total = 0;
    struct sm_http_get get = {
        .what = "an answer", .accept = "*/*", .sink = ignore_body, .arg = &total};
    int rc = sm_http_get(http, &get, err);
    return rc == -SM_EPERM
               ? sm_error_set(err, SM_EPERM,
                     "the registry %s refuses access: user or password is wrong", http->host)
               : rc;
}

/* ---- sessions ------------------------------------------------------------------------------------ */

static bool copy(char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

int sm_http_new(const struct sm_http_options *o, struct sm_http **out, sm_error *err)
{
    struct sm_http *h = calloc(1, sizeof(*h));
    if (!h)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    pthread_mutex_init(&h->lock, NULL);
    h->insecure = o->fetch.insecure;
    h->stall_s = o->fetch.stall_s ? o->fetch.stall_s : STALL_S;
    if (!copy(&h->host, o->host) || !copy(&h->repository, o->repository) ||
        !copy(&h->user, o->user) || !copy(&h->password, o->password) ||
        !copy(&h->identity_token, o->identity_token) || !copy(&h->tls_ca, o->fetch.tls_ca)) {
        sm_http_free(h);
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    *out = h;
    return 0;
}

static void free_secret(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
}

void sm_http_free(struct sm_http *h)
{
    if (!h)
        return;
    pthread_mutex_destroy(&h->lock);
    free(h->host);
    free(h->repository);
    free(h->user);
    free_secret(h->password);
    free_secret(h->identity_token);
    free_secret(h->authorization);
    free(h->tls_ca);
    free(h);
}

void sm_http_stop(struct sm_http *http)
{
    http->stop = true;
}
