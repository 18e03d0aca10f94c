/* Inside of the HTTP client: what a 401 asks for, and the answer to it. */
#ifndef SM_BUILDER_HTTP_AUTH_H
#define SM_BUILDER_HTTP_AUTH_H

#include <supermachine.h>

/* A parsed WWW-Authenticate header; empty strings where a parameter is absent. */
struct sm_challenge {
    bool bearer, basic;
    char realm[512], service[256], scope[512];
};

/* Adds what one header line says: of several challenges the bearer one counts. False when it makes
 * no sense or is too long. */
bool sm_challenge_parse(struct sm_challenge *challenge, const char *text);

/* "user:password" in base64; malloc'ed, NULL: no memory. */
char *sm_basic_credentials(const char *user, const char *password);

/* Takes the token out of a token server's answer; malloc'ed. */
int sm_token_parse(const char *data, size_t size, char **token, sm_error *err);

#endif
