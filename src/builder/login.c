/* A login is a request that the registry answers, and then a line in a file. See login.h. */
#include "builder/login.h"

#include <stdio.h>
#include <string.h>

#include "builder/credentials.h"
#include "builder/http.h"
#include "image/reference.h"
#include "util/cleanup.h"
#include "util/error.h"

/* Strips what users put around a registry's name. */
static int parse_host(const char *text, struct sm_reference **ref, sm_error *err)
{
    const char *host = strncmp(text, "https://", 8) == 0 ? text + 8 : text;
    size_t n = strcspn(host, "/");
    auto_free char *name = NULL;
    if (asprintf(&name, "%.*s/x", (int)n, host) < 0) {
        name = NULL;
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    int rc = sm_reference_parse(name, ref, err);
    if (rc == 0 && ((*ref)->kind != SM_REF_REGISTRY || (*ref)->short_name)) {
        sm_reference_free(*ref);
        *ref = NULL;
        rc = -SM_EINVAL;
    }
    return rc ? sm_error_set(err, SM_EINVAL,
                    "%.200s is not the name of a registry, as docker.io or localhost:5000", text)
              : 0;
}

int sm_login(const char *host, const char *user, const char *password, const struct sm_fetch *fetch,
    sm_error *err)
{
    auto_reference ref = NULL;
    struct sm_http *http = NULL;
    int rc = parse_host(host, &ref, err);
    if (rc == 0 && !user)
        rc = sm_error_set(err, SM_EINVAL, "a user is needed");
    if (rc == 0 && !*password)
        rc = sm_error_set(err, SM_EINVAL, "the password is empty");
    if (rc)
        return rc;
    const struct sm_http_options session = {
        .host = ref->host, .user = user, .password = password, .fetch = *fetch};
    rc = sm_http_new(&session, &http, err);
    if (rc == 0)
        rc = sm_http_check_login(http, err);
    if (rc == 0)
        rc = sm_credentials_store(ref->host, user, password, fetch->authfile, err);
    sm_http_free(http);
    return rc;
}

int sm_logout(const char *host, const struct sm_fetch *fetch, sm_error *err)
{
    auto_reference ref = NULL;
    int rc = parse_host(host, &ref, err);
    return rc ? rc : sm_credentials_erase(ref->host, fetch->authfile, err);
}
