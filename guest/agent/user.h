/* Users of the image: see user.c. */
#ifndef SM_AGENT_USER_H
#define SM_AGENT_USER_H

#include <stddef.h>
#include <sys/types.h>

#include "wire/wire.h"

#define USER_SPEC_MAX   255
#define USER_MAX_GROUPS 256

struct user {
    uid_t uid;
    gid_t gid;
    size_t n_groups; /* its own is the first */
    gid_t groups[USER_MAX_GROUPS];
    char name[128], home[256]; /* name "": of no line */
};

/* Looks "[name|uid][:[group|gid]]" up. 0, or an error kind with *what (and errno). */
int user_find(const char *spec, struct user *u, const char **what);

/* Adds groups, names or gids. On failure *which is what it failed at. */
int user_add_groups(
    struct user *u, const struct sm_wire_list *groups, const char **which, const char **what);

/* For the tests: the paths of the user database. */
void user_set_database(const char *passwd, const char *group);

#endif
