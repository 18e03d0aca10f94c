/* Programs named docker-credential-NAME that keep credentials: they are told what to do by their
 * argument, get JSON or a server's name on standard input, and answer on standard output. */
#ifndef SM_BUILDER_CREDENTIAL_HELPER_H
#define SM_BUILDER_CREDENTIAL_HELPER_H

#include "builder/credentials.h"

/* Leaves *c empty where the helper knows nothing of the server. */
int sm_helper_get(const char *name, const char *server, struct sm_credentials *c, sm_error *err);
int sm_helper_store(
    const char *name, const char *server, const char *user, const char *password, sm_error *err);
int sm_helper_erase(const char *name, const char *server, sm_error *err);

/* What a helper answers to "get"; on its own for the fuzzer. */
int sm_helper_answer(
    const char *name, const char *answer, size_t size, struct sm_credentials *c, sm_error *err);

#endif
