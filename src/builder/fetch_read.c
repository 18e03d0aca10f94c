/* struct sm_fetch from JSON and from options, by its table. See fetch_read.h. */
#include "builder/fetch_read.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "image/json.h"
#include "util/error.h"

static const struct sm_fetch_field *find_field(const char *name)
{
    for (size_t i = 0; i < SM_FETCH_FIELDS; i++)
        if (strcmp(sm_fetch_fields[i].name, name) == 0)
            return &sm_fetch_fields[i];
    return NULL;
}

static void *place_of(struct sm_fetch *fetch, const struct sm_fetch_field *field)
{
    return (char *)fetch + field->offset;
}

static int refuse(const struct sm_fetch_field *field, sm_error *err)
{
    switch (field->kind) {
    case SM_FETCH_TEXT:
        return sm_error_set(err, SM_EINVAL, "%s is not a text", field->name);
    case SM_FETCH_FLAG:
        return sm_error_set(err, SM_EINVAL, "%s is neither true nor false", field->name);
    default:
        return sm_error_set(err, SM_EINVAL, "%s is not a whole number from 0 to %" PRIu64,
            field->name, field->most);
    }
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static int take_value(
    struct sm_fetch *fetch, const struct sm_fetch_field *field, const json_t *value, sm_error *err)
{
    void *place = place_of(fetch, field);
    json_int_t number = json_integer_value(value);
    switch (field->kind) {
    case SM_FETCH_TEXT:
        *(const char **)place = json_string_value(value);
        return json_is_string(value) ? 0 : refuse(field, err);
    case SM_FETCH_FLAG:
        *(bool *)place = json_is_true(value);
        return json_is_boolean(value) ? 0 : refuse(field, err);
    case SM_FETCH_NUMBER:
        *(uint64_t *)place = (uint64_t)number;
        return json_is_integer(value) && number >= 0 && (uint64_t)number <= field->most
                   ? 0
                   : refuse(field, err);
    }
    return refuse(field, err);
}

int sm_fetch_read(
    const char *line, size_t size, struct sm_fetch *fetch, json_t **owner, sm_error *err)
{
    static const char what[] = "what the library says";
    auto_json *object = NULL;
    const char *name;
    json_t *value;
    *fetch = (struct sm_fetch){0};
    int rc = sm_json_parse(line, size, what, &object, err);
    if (rc)
        return rc;
    json_object_foreach(object, name, value)
    {
        const struct sm_fetch_field *field = find_field(name);
        if (!field)
            return sm_error_set(err, SM_EINVAL,
                "supermachine-image does not know \"%.100s\": it is not of the library's version",
                name);
        rc = take_value(fetch, field, value, err);
        if (rc)
            return rc;
    }
    *owner = sm_steal_ptr(&object);
    return 0;
}

/* ---- options --------------------------------------------------------------------------------- */

int sm_fetch_take_option(
    struct sm_fetch *fetch, const struct sm_fetch_field *field, const char *value, sm_error *err)
{
    void *place = place_of(fetch, field);
    char *end;
    if (field->kind == SM_FETCH_FLAG) {
        *(bool *)place = true;
        return 0;
    }
    if (field->kind == SM_FETCH_TEXT) {
        *(const char **)place = value;
        return 0;
    }
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || errno || number > field->most)
        return refuse(field, err);
    *(uint64_t *)place = number;
    return 0;
}
