/* Bounded JSON. See json.h. */
#include "image/json.h"

#include "util/error.h"
#include "util/file.h"

enum {
    MAX_DEPTH = 32,
    MAX_VALUES = 200000, /* a value costs jansson up to some 100 bytes */
    /* A configuration as a string: each of its bytes is two at most, since control characters in it
     * can only be white space. */
    MAX_RECORD_SIZE = 2 * SM_JSON_MAX_SIZE + (64 << 10),
};

/* Counts what opens, separates and nests outside of strings. */
static int measure(const char *data, size_t size, const char *what, sm_error *err)
{
    unsigned depth = 0;
    size_t values = 1;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        char c = data[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        if (c == '"')
            in_string = true;
        else if (c == '{' || c == '[') {
            values++;
            if (++depth > MAX_DEPTH)
                return sm_error_set(
                    err, SM_ELIMIT, "%s is nested deeper than %d levels", what, MAX_DEPTH);
        } else if ((c == '}' || c == ']') && depth > 0)
            depth--;
        else if (c == ',' || c == ':')
            values++;
        if (values > MAX_VALUES)
            return sm_error_set(err, SM_ELIMIT, "%s has more than %d values", what, MAX_VALUES);
    }
    return 0;
}

/* `flags` of jansson's. */
static int parse(
    const char *data, size_t size, const char *what, size_t flags, json_t **object, sm_error *err)
{
    int rc = measure(data, size, what, err);
    if (rc)
        return rc;
    json_error_t why;
    json_t *root = json_loadb(data, size, flags, &why);
    if (!root)
        return sm_error_set(
            err, SM_ECORRUPT, "%s is not valid JSON: line %d: %s", what, why.line, why.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return sm_error_set(err, SM_ECORRUPT, "%s is not a JSON object", what);
    }
    *object = root;
    return 0;
}

static int too_large(const char *what, sm_error *err)
{
    return sm_error_set(err, SM_ELIMIT, "%s is larger than %u bytes", what, SM_JSON_MAX_SIZE);
}

int sm_json_parse(const char *data, size_t size, const char *what, json_t **object, sm_error *err)
{
    return size > SM_JSON_MAX_SIZE ? too_large(what, err)
                                   : parse(data, size, what, JSON_REJECT_DUPLICATES, object, err);
}

int sm_json_parse_config(const char *data, size_t size, json_t **object, sm_error *err)
{
    static const char what[] = "the image's configuration";
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    if (size > SM_JSON_MAX_SIZE)
        return too_large(what, err);
    if (parse(data, size, what, flags, object, NULL) == 0)
        return 0;
    return parse(data, size, what, flags | JSON_DECODE_INT_AS_REAL, object, err);
}

int sm_json_load_at(int dirfd, const char *path, json_t **object, sm_error *err)
{
    auto_free char *data = NULL;
    size_t size;
    int rc = sm_read_file_at(dirfd, path, SM_JSON_MAX_SIZE, &data, &size, err);
    return rc ? rc : sm_json_parse(data, size, path, object, err);
}

int sm_json_load_record_at(int dirfd, const char *path, json_t **object, sm_error *err)
{
    auto_free char *data = NULL;
    size_t size;
    int rc = sm_read_file_at(dirfd, path, MAX_RECORD_SIZE, &data, &size, err);
    return rc ? rc : parse(data, size, path, JSON_REJECT_DUPLICATES, object, err);
}

const char *sm_json_string(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

bool sm_json_size(const json_t *object, const char *key, uint64_t *value)
{
    const json_t *v = json_object_get(object, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *value = (uint64_t)json_integer_value(v);
    return true;
}
