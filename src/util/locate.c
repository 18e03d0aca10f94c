/* Where our files are. See locate.h. */
#include "util/locate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/error.h"

static int no_memory(sm_error *err)
{
    return sm_error_set(err, SM_ENOMEM, "no memory for a path");
}

/* DIR/[SUB/]NAME if it can be read, NULL otherwise (or without memory: then it is not found). */
static char *readable(const char *dir, const char *sub, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s%s%s", dir, sub, *sub ? "/" : "", name) < 0)
        return NULL;
    if (access(path, R_OK) == 0)
        return path;
    free(path);
    return NULL;
}

int sm_locate(const char *name, const char *env, const char *beside, char **path, sm_error *err)
{
    const char *dir = secure_getenv(env);
    if (dir && *dir) {
        *path = readable(dir, "", name);
        if (*path)
            return 0;
        return sm_error_set(
            err, SM_ENOTFOUND, "there is no readable %s in '%s', which %s names", name, dir, env);
    }
    auto_free char *exe = realpath("/proc/self/exe", NULL);
    if (!exe)
        return no_memory(err);
    *strrchr(exe, '/') = '\0';
    *path = readable(exe, beside, name);
    if (!*path)
        *path = readable(SM_PKGLIBDIR, "", name);
    if (*path)
        return 0;
    return sm_error_set(err, SM_ENOTFOUND,
        "%s is neither in '%s%s%s' nor in '" SM_PKGLIBDIR "'; install supermachine, or name its "
        "directory in %s",
        name, exe, *beside ? "/" : "", beside, env);
}
