/* A growing vector of strings. See strv.h. */
#include "util/strv.h"

#include <stdlib.h>
#include <string.h>

bool sm_strv_add(struct sm_strv *v, const char *text)
{
    char **items = reallocarray(v->items, v->count + 2, sizeof(*items));
    if (!items)
        return false;
    v->items = items;
    v->items[v->count] = strdup(text);
    if (!v->items[v->count])
        return false;
    v->items[++v->count] = NULL;
    return true;
}

bool sm_strv_set_env(struct sm_strv *v, const char *pair)
{
    const char *eq = strchr(pair, '=');
    size_t n = eq ? (size_t)(eq - pair) + 1 : strlen(pair) + 1;
    for (size_t i = 0; i < v->count; i++) {
        if (strncmp(v->items[i], pair, n) == 0) {
            char *copy = strdup(pair);
            if (!copy)
                return false;
            free(v->items[i]);
            v->items[i] = copy;
            return true;
        }
    }
    return sm_strv_add(v, pair);
}

void sm_strv_clear(struct sm_strv *v)
{
    for (size_t i = 0; i < v->count; i++)
        free(v->items[i]);
    free(v->items);
    *v = (struct sm_strv){0};
}
