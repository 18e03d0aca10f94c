/* Credentials of registries, read and kept where container tools keep them: auth.json of podman and
 * skopeo, config.json of docker, docker-credential-* helpers. */
#ifndef SM_BUILDER_CREDENTIALS_H
#define SM_BUILDER_CREDENTIALS_H

#include <supermachine.h>

#include "util/cleanup.h"

struct sm_credentials {
    char *user, *password; /* both NULL: none are known */
    char *identity_token;  /* instead of them */
};

void sm_credentials_clear(struct sm_credentials *c);

/* authfile NULL: $REGISTRY_AUTH_FILE, or all of the usual places. Having none is no error. */
int sm_credentials_find(const char *host, const char *repository, const char *authfile,
    struct sm_credentials *c, sm_error *err);

/* Writes them to authfile (NULL: $REGISTRY_AUTH_FILE, or the user's auth.json), mode 0600, or gives
 * them to the helper that the file names for the host. */
int sm_credentials_store(
    const char *host, const char *user, const char *password, const char *authfile, sm_error *err);

/* Removes them; SM_ENOTFOUND when there were none. */
int sm_credentials_erase(const char *host, const char *authfile, sm_error *err);

#endif
