/* Inside of the HTTP client: tokens of a registry's token server (distribution's token
 * specification, OAuth2). */
#ifndef SM_BUILDER_HTTP_TOKEN_H
#define SM_BUILDER_HTTP_TOKEN_H

#include "builder/http_auth.h"
#include "builder/http_session.h"

/* Gets the token that a challenge of a place as near as `nearest` asks for; malloc'ed. */
int sm_http_get_token(struct sm_http *http, const struct sm_challenge *challenge, int nearest,
    char **token, sm_error *err);

#endif
