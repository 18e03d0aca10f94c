/*
 * Requests by libcurl. A request goes through a loop until it has an answer that means something:
 *
 * - 401: the challenge is answered once (a token is fetched, or basic credentials are used); what
 *   was learned is kept in the session for the requests to come. A second 401 is the end.
 * - Redirects are followed here and not by libcurl, so that it is seen here what goes with them:
 *   the Authorization header is only ever sent to the origin (scheme, host, port) of the registry.
 *   From https nothing leads to http.
 * - 408, 429, 5xx and broken connections are tried again, after what Retry-After says or a time
 *   that doubles. Bytes that came count: the next attempt asks for the rest, and who delivers a
 *   fair number of bytes each time is not given up on.
 *
 * Secrets are in memory and in request headers only: never in errors, arguments, URLs that are
 * shown.
 */
#include "builder/http.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "builder/http_attempt.h"
#include "builder/http_auth.h"
#include "builder/http_body.h"
#include "builder/http_session.h"
#include "builder/http_token.h"
#include "builder/http_url.h"
#include "util/bytes.h"
#include "util/error.h"

enum {
    MAX_ANSWER = 64 << 10, /* that nobody reads */
    MAX_REDIRECTS = 5,
    PATIENCE = 24, /* what attempts in a row may cost that do not bring FAIR_SHARE bytes */
    COST_OF_NOTHING = 4,
    COST_OF_LITTLE = 1,
    FAIR_SHARE = 64 << 10,
    FIRST_WAIT_MS = 300,
    MAX_RETRY_AFTER_S = 120,
    STALL_S = 30, /* unless the user says another; see http_attempt.c */
};

/* ---- authentication -------------------------------------------------------------------------- */

/* Answers a challenge that came from a place as near as `nearest`. `serial` is that of the
 * authorization that was refused: where another thread has replaced it meanwhile there is nothing
 * to do. */
static int authenticate(
    struct sm_http *h, const struct sm_challenge *ch, int nearest, unsigned serial, sm_error *err)
{
    int rc = 0;
    pthread_mutex_lock(&h->lock);
    if (h->auth_serial == serial) {
        auto_free char *secret = NULL;
        char *line = NULL;
        if (ch->bearer)
            rc = sm_http_get_token(h, ch, nearest, &secret, err);
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

/* ---- requests -------------------------------------------------------------------------------- */

struct request {
    struct sm_http *http;
    struct sm_http_get *get;
    CURL *curl;
    char *url;      /* where it is now */
    bool at_origin; /* the URL is the registry's */
    /* of the registry: of where its last answer came from, as sm_address_nearness has it */
    int nearness;
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
    const char *refused = sm_http_place_refused(r->http, to);
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

/* Waits before another attempt, or gives up with what went wrong. What took long (a timeout) costs
 * twice. */
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
static int broken(struct request *r, const struct sm_http_attempt *a, uint64_t before, int code)
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
    if (code == CURLE_SSL_CONNECT_ERROR && sm_http_plain_allowed(h, r->url) && !h->plain &&
        r->at_origin) {
        pthread_mutex_lock(&h->lock);
        h->plain = true;
        pthread_mutex_unlock(&h->lock);
        return restart(r);
    }
    if (a->too_near)
        return sm_error_set(
            r->err, SM_EPROTOCOL, "the registry %s redirects us to " SM_HTTP_NEARER, h->host);
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

static int refused(struct request *r, const struct sm_http_attempt *a)
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
static int judge(
    struct request *r, const struct sm_http_attempt *a, uint64_t before, unsigned serial)
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
        rc = authenticate(r->http, &a->challenge, r->nearness, serial, r->err);
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

/* How near the place is that has answered. Addresses that were only tried say nothing: what a
 * registry's name resolves to is up to the registry. */
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
        if (sm_http_renew(&r->curl) != 0)
            return sm_error_set(r->err, SM_ENOMEM, "out of memory");
        struct sm_http_attempt a = {.http = h,
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
        int code = sm_http_try(&a, r->url, r->get->accept, authorization, NULL);
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

int sm_http_check_login(struct sm_http *http, sm_error *err)
{
    auto_http_body body = {.what = "the registry's answer", .most = MAX_ANSWER};
    struct sm_http_get get = {
        .what = "an answer", .accept = "*/*", .sink = sm_http_take_body, .arg = &body};
    int rc = sm_http_get(http, &get, err);
    return rc == -SM_EPERM
               ? sm_error_set(err, SM_EPERM,
                     "the registry %s refuses access: user or password is wrong", http->host)
               : rc;
}

/* ---- sessions -------------------------------------------------------------------------------- */

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
