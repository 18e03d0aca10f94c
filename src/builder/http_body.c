/* See http_body.h. */
#include "builder/http_body.h"

#include <stdlib.h>
#include <string.h>

#include "util/error.h"

int sm_http_take_body(void *arg, const void *data, size_t size, sm_error *err)
{
    struct sm_http_body *b = arg;
    if (size > b->most - b->size)
        return sm_error_set(err, SM_ELIMIT, "%s is larger than %zu bytes", b->what, b->most);
    char *grown = realloc(b->data, b->size + size);
    if (!grown)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    b->data = grown;
    memcpy(b->data + b->size, data, size);
    b->size += size;
    return 0;
}

/* What a token server answers is a secret. */
void sm_http_body_clear(struct sm_http_body *b)
{
    if (b->data)
        explicit_bzero(b->data, b->size);
    free(b->data);
    b->data = NULL;
    b->size = 0;
}
