/* Where our files are. See locate.h. */
#include "util/locate.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/paths.h"

/* DIR/[SUB/]NAME if it can be read, NULL otherwise (or without memory: then it is not found). One
 * that is there but may not be read is put into *denied. */
static char *readable(const char *dir, const char *sub, const char *name, char **denied)
{
    char *path;
    if (!dir || asprintf(&path, "%s/%s%s%s", dir, sub, *sub ? "/" : "", name) < 0)
        return NULL;
    if (access(path, R_OK) == 0)
        return path;
    if (errno == EACCES && !*denied)
        *denied = path;
    else
        free(path);
    return NULL;
}

/* The directory of the running program. An upgrade may have replaced its file: then the kernel adds
 * a word to its name, which is no path any more, but what belongs to us is still where it was. */
static char *program_dir(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (n <= 0)
        return NULL;
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    if (!slash)
        return NULL;
    *slash = '\0';
    return strdup(path);
}

/* The directory of the shared library that we are in; NULL: we are in the program itself. The
 * loader's own record says what was loaded from where, and names no file for the program. dladdr
 * names argv[0] then: whatever the one who started us chose. */
static char *library_dir(void)
{
    static const char marker;
    Dl_info us;
    void *loaded = NULL;
    if (!dladdr1(&marker, &us, &loaded, RTLD_DL_LINKMAP) || !loaded)
        return NULL;
    const struct link_map *map = loaded;
    if (!map->l_name || *map->l_name != '/')
        return NULL;
    char *path = realpath(map->l_name, NULL);
    if (path)
        *strrchr(path, '/') = '\0';
    return path;
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
    auto_free char *program = program_dir();
    auto_free char *library = library_dir();
    const struct {
        const char *dir, *sub;
    } places[] = {{program, beside}, {program, "../" SM_PKGLIBDIR_IN_PREFIX}, {library, beside},
        {library, "supermachine"}, {SM_PKGLIBDIR, ""}};
    for (size_t i = 0; i < SM_ARRAY_LEN(places); i++) {
        *path = readable(places[i].dir, places[i].sub, name, &denied);
        if (*path)
            return 0;
    }
    if (denied)
        return sm_error_set(err, SM_EPERM, "this user may not read '%s'", denied);
    return sm_error_set(err, SM_ENOTFOUND,
        "%s is neither in '%s%s%s', where the program is, nor in its prefix, "
        "beside the library or in '" SM_PKGLIBDIR "'; install supermachine, "
        "or name its directory in %s",
        name, program ? program : "?", *beside ? "/" : "", beside, env);
}
