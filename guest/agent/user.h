/* Users of the image: see user.c. */
#ifndef SM_AGENT_USER_H
#define SM_AGENT_USER_H

#include <stddef.h>
#include <sys/types.h>

struct user {
    uid_t uid;
    gid_t gid;
    const char *home; /* in storage, or a constant */
    size_t n_groups;
    gid_t groups[128];
    char storage[256];
};

/* Looks "name|uid[:group|gid]" up. 0, or an error kind with *what (and errno). */
int user_find(const char *spec, struct user *u, const char **what);

/* For the tests: the paths of the user database. */
void user_set_database(const char *passwd, const char *group);

#endif
