/* Where the files that belong to us are: guest kernel, agent, helper programs. */
#ifndef SM_UTIL_LOCATE_H
#define SM_UTIL_LOCATE_H

#include <supermachine.h>

/* Finds `name`, a file that can be read: in the directory of the environment variable `env`, which,
 * where it is set, is the only one; in the directory `beside` (such as "guest", "": itself) of that
 * of the program; in <libdir>/supermachine of the prefix that the program is in (a staged or moved
 * tree); likewise beside the shared library, where we are in one; in <libdir>/supermachine as
 * configured. *path is malloc'ed. SM_ENOTFOUND says where it was looked for. */
int sm_locate(const char *name, const char *env, const char *beside, char **path, sm_error *err);

#endif
