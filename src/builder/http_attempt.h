/*
 * Inside of the HTTP client: one attempt at one URL, without any judgement of the answer.
 * Everything that a server sends is bounded here: headers, bodies of answers that are not what was
 * asked for, time without progress. What a sink takes is bounded by the sink.
 */
#ifndef SM_BUILDER_HTTP_ATTEMPT_H
#define SM_BUILDER_HTTP_ATTEMPT_H

#include <curl/curl.h>

#include "builder/http.h"
#include "builder/http_auth.h"
#include "builder/http_session.h"

/* What is asked, all of it but `curl` by the caller, */
struct sm_http_attempt {
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
    /* and what came of it: */
    int rc; /* of the sink */
    size_t headers;
    long status;
    bool wrong_range;
    struct sm_challenge challenge;
    char content_type[128], digest[128];
    char error_body[512];
    size_t error_len, other_len;
};

/* Makes *curl a handle that nothing was done with; the caller cleans it up. */
int sm_http_renew(CURL **curl);

/* GET, or, with `post`, POST. The CURLcode, or a negative sm_code where the request could not even
 * be made. */
int sm_http_try(struct sm_http_attempt *a, const char *url, const char *accept,
    const char *authorization, const char *post);

#endif
