/* Credentials of a registry, checked and kept: `supermachine-image login` and `logout`. */
#ifndef SM_BUILDER_LOGIN_H
#define SM_BUILDER_LOGIN_H

#include "image/fetch.h"

/* `host` as users write it, with https:// before or a path behind. */
int sm_login(const char *host, const char *user, const char *password, const struct sm_fetch *fetch,
    sm_error *err);
int sm_logout(const char *host, const struct sm_fetch *fetch, sm_error *err);

#endif
