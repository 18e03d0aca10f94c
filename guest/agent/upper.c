/*
 * Directories of the overlay's upper layer that are made before the overlay is mounted: what is put
 * there costs no copy-up, and looks as after one. A directory that the image has keeps its owner,
 * mode, attributes and times; links of the image lead to where they lead inside of the image, and
 * what is missing is made, as container engines do it.
 */
#include "upper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define LINKS_MAX 40 /* as many as the kernel follows */

/* The path of `path` in a layer. NULL: it is too long. */
static const char *in_layer(const char *layer, const char *path, size_t len, char *buf)
{
    size_t n = strlen(layer);
    if (n + len >= UPPER_PATH)
        return NULL;
    memcpy(buf, layer, n);
    memcpy(buf + n, path, len);
    buf[n + len] = 0;
    return buf;
}

/* Puts the link's target before what is left of the path. */
static int follow(const char *link, char *rest, char *real, size_t parent)
{
    char target[UPPER_PATH];
    ssize_t n = readlink(link, target, sizeof(target) - 1);
    if (n < 0)
        return errno;
    target[n] = 0;
    size_t left = strlen(rest);
    if ((size_t)n + 1 + left >= UPPER_PATH)
        return ENAMETOOLONG;
    memmove(rest + n + 1, rest, left + 1);
    memcpy(rest, target, (size_t)n);
    rest[n] = '/';
    real[target[0] == '/' ? 0 : parent] = 0;
    return 0;
}

/* Appends a component to real, or follows it. */
static int step(
    const char *lower, const char *name, size_t len, char *rest, char *real, unsigned *links)
{
    char buf[UPPER_PATH];
    struct stat st;
    size_t parent = strlen(real);
    if (len == 2 && memcmp(name, "..", 2) == 0) {
        char *slash = strrchr(real, '/');
        if (slash)
            *slash = 0;
        return 0;
    }
    if (parent + 1 + len >= UPPER_PATH)
        return ENAMETOOLONG;
    real[parent] = '/';
    memcpy(real + parent + 1, name, len);
    real[parent + 1 + len] = 0;
    const char *path = in_layer(lower, real, strlen(real), buf);
    if (!path)
        return ENAMETOOLONG;
    if (lstat(path, &st) != 0)
        return errno == ENOENT ? 0 : errno;
    if (S_ISLNK(st.st_mode))
        return ++*links > LINKS_MAX ? ELOOP : follow(path, rest, real, parent);
    return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
}

/* Where the path leads in the image, as a path without links. */
static int resolve(const char *lower, const char *path, char real[UPPER_PATH])
{
    char rest[UPPER_PATH], name[NAME_MAX + 1];
    unsigned links = 0;
    int e = 0;
    real[0] = 0;
    strcpy(rest, path);
    while (e == 0) {
        size_t skip = strspn(rest, "/"), len = strcspn(rest + skip, "/");
        if (len == 0)
            break;
        if (len > NAME_MAX)
            return ENAMETOOLONG;
        memcpy(name, rest + skip, len);
        memmove(rest, rest + skip + len, strlen(rest + skip + len) + 1);
        if (len > 1 || name[0] != '.')
            e = step(lower, name, len, rest, real, &links);
    }
    return e;
}

/* But for those that the overlay keeps for itself. What tmpfs does not take is left out, as by a
 * copy-up. */
static int copy_attributes(const char *from, const char *to)
{
    static char names[64 * 1024], value[64 * 1024];
    ssize_t n = listxattr(from, names, sizeof(names));
    if (n < 0)
        return errno == EOPNOTSUPP ? 0 : errno;
    for (const char *name = names; name < names + n; name += strlen(name) + 1) {
        if (strncmp(name, "trusted.overlay.", 16) == 0)
            continue;
        ssize_t size = getxattr(from, name, value, sizeof(value));
        if (size < 0 || (setxattr(to, name, value, (size_t)size, 0) != 0 && errno != EOPNOTSUPP))
            return errno;
    }
    return 0;
}

static int make_like(const char *from, const char *to)
{
    struct stat st;
    if (mkdir(to, 0755) != 0 && errno != EEXIST)
        return errno;
    if (stat(from, &st) != 0)
        return errno == ENOENT ? 0 : errno;
    if ((st.st_uid | st.st_gid) != 0 && chown(to, st.st_uid, st.st_gid) != 0)
        return errno;
    int e = copy_attributes(from, to);
    return e == 0 && chmod(to, st.st_mode & 07777) != 0 ? errno : e;
}

/* Making something in a directory changes its times: they come last. */
static int copy_times(const char *from, const char *to)
{
    struct stat st;
    if (stat(from, &st) != 0)
        return errno == ENOENT ? 0 : errno;
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    return utimensat(AT_FDCWD, to, times, 0) != 0 ? errno : 0;
}

/* Calls fn for each directory from the layers' root to `real`. */
static int for_each(const struct upper_dir *d, int (*fn)(const char *from, const char *to))
{
    char from[UPPER_PATH], to[UPPER_PATH];
    int e = fn(d->lower, d->upper);
    for (size_t len = 1; e == 0 && d->real[len - 1]; len++) {
        if (d->real[len] && d->real[len] != '/')
            continue;
        e = in_layer(d->lower, d->real, len, from) && in_layer(d->upper, d->real, len, to)
                ? fn(from, to)
                : ENAMETOOLONG;
    }
    return e;
}

int upper_dir_make(struct upper_dir *d, const char *path, int *fd)
{
    char to[UPPER_PATH];
    int e = resolve(d->lower, path, d->real);
    if (e == 0)
        e = for_each(d, make_like);
    if (e != 0)
        return e;
    if (!in_layer(d->upper, d->real, strlen(d->real), to))
        return ENAMETOOLONG;
    *fd = open(to, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return *fd < 0 ? errno : 0;
}

int upper_dir_finish(const struct upper_dir *d)
{
    return for_each(d, copy_times);
}
