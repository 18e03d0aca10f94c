/* Bounded JSON: what comes from images, registries and files is measured before jansson sees it, so
 * that neither nesting nor the number of values can cost more than `size` suggests. */
#ifndef SM_IMAGE_JSON_H
#define SM_IMAGE_JSON_H

#include <jansson.h>

#include <supermachine.h>

#include "util/cleanup.h"

static inline void sm_json_decref_cleanup(json_t **p)
{
    json_decref(*p);
}
#define auto_json SM_CLEANUP(sm_json_decref_cleanup) json_t

#define SM_JSON_MAX_SIZE (4u << 20)

/* Parses an object. `what` names the document in errors. */
int sm_json_parse(const char *data, size_t size, const char *what, json_t **object, sm_error *err);

/* An image's configuration, most of which nobody here reads: strings may hold NUL (a label is what
 * its writer likes). Where an integer is too large for 64 bits all numbers are reals (a number that
 * is too large for those, too, is refused); otherwise what is read is written as it was. */
int sm_json_parse_config(const char *data, size_t size, json_t **object, sm_error *err);

int sm_json_load_at(int dirfd, const char *path, json_t **object, sm_error *err);
/* A record of ours, which has a whole configuration in it as a string. */
int sm_json_load_record_at(int dirfd, const char *path, json_t **object, sm_error *err);

/* The string member, or NULL where there is none or it is of another type. */
const char *sm_json_string(const json_t *object, const char *key);

/* The non-negative integer member; false where there is none. */
bool sm_json_size(const json_t *object, const char *key, uint64_t *value);

#endif
