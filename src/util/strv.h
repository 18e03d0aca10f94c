/* A growing vector of strings that owns them; items is NULL-terminated, or NULL while it is
 * empty. */
#ifndef SM_UTIL_STRV_H
#define SM_UTIL_STRV_H

#include <stdbool.h>
#include <stddef.h>

struct sm_strv {
    char **items;
    size_t count;
};

/* False: no memory, the vector is as it was. */
bool sm_strv_add(struct sm_strv *v, const char *text);
/* Adds "NAME=VALUE", or puts it in the place of what the NAME had. */
bool sm_strv_set_env(struct sm_strv *v, const char *pair);
void sm_strv_clear(struct sm_strv *v);

#define auto_strv __attribute__((cleanup(sm_strv_clear))) struct sm_strv

#endif
