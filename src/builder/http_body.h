/* A sink for answers that are kept in memory. */
#ifndef SM_BUILDER_HTTP_BODY_H
#define SM_BUILDER_HTTP_BODY_H

#include <supermachine.h>

#include "util/cleanup.h"

struct sm_http_body {
    const char *what; /* for errors */
    size_t most;
    char *data; /* NULL while it is empty */
    size_t size;
};

/* An sm_http_sink: arg is the body. SM_ELIMIT: it is too long. */
int sm_http_take_body(void *arg, const void *data, size_t size, sm_error *err);

void sm_http_body_clear(struct sm_http_body *body);
#define auto_http_body SM_CLEANUP(sm_http_body_clear) struct sm_http_body

#endif
