/* How images are to be got, as the program is told: a line of JSON from the library, or options
 * from a person. */
#ifndef SM_BUILDER_FETCH_READ_H
#define SM_BUILDER_FETCH_READ_H

#include <jansson.h>

#include "image/fetch.h"

/* Reads what sm_fetch_write wrote, and refuses all else: other names, other types, numbers out of
 * range. The texts live as long as *owner, which is the caller's. */
int sm_fetch_read(
    const char *line, size_t size, struct sm_fetch *fetch, json_t **owner, sm_error *err);

/* Takes one option; value NULL: it has none. The text is not copied. */
int sm_fetch_take_option(
    struct sm_fetch *fetch, const struct sm_fetch_field *field, const char *value, sm_error *err);

#endif
