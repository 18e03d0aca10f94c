/* Where our files are. See locate.h. */
#include "util/locate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/error.h"

/* DIR/[SUB/]NAME if it can be read, NULL otherwise (or without memory: then it is not found). One that is there but may not be
 * read is put into *denied. */
static char *readable(const char *dir, const char *sub, const char *name, char **denied)
{
    char *path;
    if (asprintf(&path, "%s/%s%s%s", dir, sub, *sub ? "/" : "", name) < 0)
        return NULL;
    if (access(path, R_OK) == 0)
        return path;
    if (errno == EACCES && !*denied)
        *denied = path;
    else
        free(path);
    return NULL;
}

int sm_locate(const char *name, const char *env, const char *beside, char **path, sm_error *err)
{
    auto_free char *denied = NULL;
    const char *dir = secure_getenv(env);
    if (dir && *dir) {
        *path = readable(dir, "", name, &denied);
        if (*path)
            return 0;
        return sm_error_set(
            err, SM_ENOTFOUND, "there is no readable %s in '%s', which %s names", name, dir, env);
    }
    auto_free char *exe = realpath("/proc/self/exe", NULL);
    if (exe) { /* else the program was replaced while it runs */
        *strrchr(exe, '/') = '\0';
        *path = readable(exe, beside, name, &denied);
        if (*path)
            return 0;
    }
    *path = readable(SM_PKGLIBDIR, "", name, &denied);
    if (*path)
        return 0;
    if (denied)
        return sm_error_set(err, SM_EPERM, "this user may not read '%s'", denied);
    return sm_error_set(err, SM_ENOTFOUND,
        "%s is neither in '%s%s%s' nor in '" SM_PKGLIBDIR "'; install supermachine, or name its "
        "directory in %s",
        name, exe ? exe : "the directory of this program", *beside ? "/" : "", beside, env);
}
