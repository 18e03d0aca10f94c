/*
 * Inside of the HTTP client: what all requests of one registry share, and which places they may go
 * to. The lock is of what a request learns for the others (see its fields); the rest does not
 * change while the session lives.
 */
#ifndef SM_BUILDER_HTTP_SESSION_H
#define SM_BUILDER_HTTP_SESSION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

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

/* Whether a request of the session may go to the URL without TLS. */
bool sm_http_plain_allowed(const struct sm_http *http, const char *url);

/* Why we do not go to a place that the registry names (for a token, by a redirect); NULL: we do.
 * Requests of ours must not become the registry's way to services of this machine. Names that only
 * resolve to such a place are found when the connection is made (http_attempt.h, too_near). */
const char *sm_http_place_refused(const struct sm_http *http, const char *url);
#define SM_HTTP_NEARER "a place that is nearer to this machine than itself"

#endif
