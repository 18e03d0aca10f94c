/* The table of what struct sm_fetch holds, and its way into JSON. See fetch.h. */
#include "image/fetch.h"

#include <stddef.h>

#include "image/json.h"
#include "util/error.h"

enum { MAX_STALL_S = 24 * 60 * 60 }; /* a transfer that stands still for a day is none */

const struct sm_fetch_field sm_fetch_fields[SM_FETCH_FIELDS] = {
    {"platform", SM_FETCH_TEXT, offsetof(struct sm_fetch, platform), 0},
    {"tls-ca", SM_FETCH_TEXT, offsetof(struct sm_fetch, tls_ca), 0},
    {"authfile", SM_FETCH_TEXT, offsetof(struct sm_fetch, authfile), 0},
    {"insecure-registry", SM_FETCH_FLAG, offsetof(struct sm_fetch, insecure), 0},
    {"stall-timeout", SM_FETCH_NUMBER, offsetof(struct sm_fetch, stall_s), MAX_STALL_S},
    {"max-bytes", SM_FETCH_NUMBER, offsetof(struct sm_fetch, max_bytes), INT64_MAX},
};

/* The field's value; NULL: it is not set, or *failed. */
static json_t *value_of(const void *at, enum sm_fetch_kind kind, bool *failed)
{
    json_t *value = NULL;
    bool set = false;
    switch (kind) {
    case SM_FETCH_TEXT: {
        const char *text = *(const char *const *)at;
        set = text;
        value = set ? json_string(text) : NULL;
        break;
    }
    case SM_FETCH_FLAG:
        set = *(const bool *)at;
        value = set ? json_true() : NULL;
        break;
    case SM_FETCH_NUMBER: {
        uint64_t number = *(const uint64_t *)at;
        set = number > 0;
        value = set ? json_integer((json_int_t)number) : NULL;
        break;
    }
    }
    *failed = set && !value;
    return value;
}

int sm_fetch_write(const struct sm_fetch *fetch, char **line, sm_error *err)
{
    auto_json *object = json_object();
    bool failed = !object;
    for (size_t i = 0; !failed && i < SM_FETCH_FIELDS; i++) {
        const struct sm_fetch_field *f = &sm_fetch_fields[i];
        json_t *value = value_of((const char *)fetch + f->offset, f->kind, &failed);
        if (failed && f->kind == SM_FETCH_TEXT)
            return sm_error_set(err, SM_EINVAL, "the value of %s is not valid UTF-8", f->name);
        if (value)
            failed = json_object_set_new(object, f->name, value) != 0;
    }
    char *text = failed ? NULL : json_dumps(object, JSON_COMPACT);
    if (!text)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    *line = text;
    return 0;
}
