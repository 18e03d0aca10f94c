/*
 * GET requests to a registry: authentication, redirects, retries, bounds. One session per registry
 * and repository; any number of threads may make requests of it at once.
 */
#ifndef SM_BUILDER_HTTP_H
#define SM_BUILDER_HTTP_H

#include "image/fetch.h"
#include "util/cleanup.h"

struct sm_http;

struct sm_http_options {
    const char *host; /* as in references */
    const char *repository;
    const char *user, *password; /* NULL: anonymous */
    const char *identity_token;  /* instead of a password; NULL: none */
    struct sm_fetch fetch;       /* of it: tls_ca, insecure, stall_s */
};

int sm_http_new(const struct sm_http_options *options, struct sm_http **http, sm_error *err);
void sm_http_free(struct sm_http *http);
/* Makes all requests that run or come end with SM_ECANCELLED, soon. */
void sm_http_stop(struct sm_http *http);

/* Takes a piece of the body; 0, or a negative code with *err filled. */
typedef int sm_http_sink(void *arg, const void *data, size_t size, sm_error *err);

struct sm_http_get {
    const char *what;   /* for errors: "the manifest of docker.io/library/alpine:latest" */
    const char *path;   /* behind /v2/REPOSITORY/ */
    const char *accept; /* media types, or NULL */
    uint64_t from;      /* the first byte that is wanted; grows as the sink takes bytes */
    sm_http_sink *sink;
    void *arg;
    /* filled: */
    char content_type[128];
    char digest[128]; /* Docker-Content-Digest, or "" */
};

/* The sink gets exactly the bytes from `from` on, also across retries and with a server that knows
 * no ranges. */
int sm_http_get(struct sm_http *http, struct sm_http_get *get, sm_error *err);

/* Only makes sure that the registry takes the credentials. */
int sm_http_check_login(struct sm_http *http, sm_error *err);

#endif
