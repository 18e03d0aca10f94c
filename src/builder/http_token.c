/* See http_token.h. */
#include "builder/http_token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "builder/http_attempt.h"
#include "builder/http_body.h"
#include "util/cleanup.h"
#include "util/error.h"

enum { MAX_TOKEN_BODY = 256 << 10 };

/* What is asked of the token server. Of the texts all but the URL may be NULL. */
struct question {
    char *url, *post, *basic;
};

static void free_secret(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

static void question_clear(struct question *q)
{
    free(q->url);
    free_secret(q->post);
    free_secret(q->basic);
}
#define auto_question SM_CLEANUP(question_clear) struct question

/* Adds NAME=VALUE, escaped; value NULL: nothing. */
static bool add_parameter(
    CURL *curl, char **text, char separator, const char *name, const char *value)
{
    if (!value)
        return true;
    char *escaped = curl_easy_escape(curl, value, 0), *grown = NULL;
    int n = escaped ? asprintf(&grown, "%s%c%s=%s", *text, separator, name, escaped) : -1;
    curl_free(escaped);
    if (n < 0)
        return false;
    free_secret(*text);
    *text = grown;
    return true;
}

/* The OAuth2 POST, with an identity token. */
static bool ask_by_post(struct question *q, CURL *curl, const struct sm_http *h,
    const struct sm_challenge *ch, const char *scope)
{
    q->url = strdup(ch->realm);
    q->post = strdup("grant_type=refresh_token");
    return q->url && q->post && add_parameter(curl, &q->post, '&', "service", ch->service) &&
           add_parameter(curl, &q->post, '&', "scope", scope) &&
           add_parameter(curl, &q->post, '&', "client_id", "supermachine") &&
           add_parameter(curl, &q->post, '&', "refresh_token", h->identity_token);
}

static char next_separator(const char *url)
{
    return strchr(url, '?') ? '&' : '?';
}

/* GET, with basic credentials where there are some. */
static bool ask_by_get(struct question *q, CURL *curl, const struct sm_http *h,
    const struct sm_challenge *ch, const char *scope)
{
    const char *service = *ch->service ? ch->service : NULL;
    q->url = strdup(ch->realm);
    if (!q->url || !add_parameter(curl, &q->url, next_separator(q->url), "service", service) ||
        !add_parameter(curl, &q->url, next_separator(q->url), "scope", scope))
        return false;
    if (!h->user)
        return true;
    char *pair = sm_basic_credentials(h->user, h->password ? h->password : "");
    if (pair && asprintf(&q->basic, "Basic %s", pair) < 0)
        q->basic = NULL;
    free_secret(pair);
    return q->basic;
}

static bool make_question(
    struct question *q, CURL *curl, const struct sm_http *h, const struct sm_challenge *ch)
{
    char scope[sizeof(ch->scope)];
    int n = *ch->scope ? snprintf(scope, sizeof(scope), "%s", ch->scope)
                       : snprintf(scope, sizeof(scope), "repository:%s:pull",
                             h->repository ? h->repository : "");
    if (n >= (int)sizeof(scope))
        return false;
    const char *what = h->repository ? scope : NULL;
    return h->identity_token ? ask_by_post(q, curl, h, ch, what) : ask_by_get(q, curl, h, ch, what);
}

/* What came of it; `code` is what sm_http_try returned. */
static int judge(const struct sm_http_attempt *a, int code)
{
    const struct sm_http *h = a->http;
    if (a->rc || code < 0)
        return a->rc ? a->rc : code;
    if (code > 0 && a->too_near)
        return sm_error_set(a->err, SM_EPROTOCOL,
            "the registry %s sends us for a token to " SM_HTTP_NEARER, h->host);
    if (code > 0)
        return sm_error_set(a->err, h->stop ? SM_ECANCELLED : SM_ENETWORK,
            "cannot get a token for the registry %s: %s", h->host,
            curl_easy_strerror((CURLcode)code));
    if (a->status == 401 || a->status == 403)
        return sm_error_set(a->err, SM_EPERM, "the registry %s does not accept the %s", h->host,
            h->user || h->identity_token ? "credentials: log in again"
                                         : "anonymous access: log in");
    if (a->status != 200)
        return sm_error_set(a->err, SM_ENETWORK, "the token server of the registry %s answers %ld",
            h->host, a->status);
    return 0;
}

int sm_http_get_token(
    struct sm_http *h, const struct sm_challenge *ch, int nearest, char **token, sm_error *err)
{
    const char *refused = sm_http_place_refused(h, ch->realm);
    if (refused)
        return sm_error_set(
            err, SM_EPROTOCOL, "the registry %s sends us for a token to %s", h->host, refused);
    auto_http_body body = {.what = "the token server's answer", .most = MAX_TOKEN_BODY};
    auto_question q = {0};
    struct sm_http_attempt a = {.http = h,
        .sink = sm_http_take_body,
        .arg = &body,
        .small = true,
        .nearest = nearest,
        .err = err};
    int rc = sm_http_renew(&a.curl);
    if (rc || !make_question(&q, a.curl, h, ch))
        rc = sm_error_set(err, SM_ENOMEM, "out of memory");
    else
        rc = judge(&a, sm_http_try(&a, q.url, NULL, q.basic, q.post));
    if (rc == 0)
        rc = sm_token_parse(body.data ? body.data : "", body.size, token, err);
    curl_easy_cleanup(a.curl);
    return rc;
}
