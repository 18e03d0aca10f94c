/* `mkdir -p` and its reverse: see directory.h. A child that shares the agent's memory may call the
 * former. */
#include "directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wire/wire.h"

int directory_make(const char *path)
{
    char made[SM_WIRE_MAX_PATH + 1];
    size_t len = strlen(path);
    if (len >= sizeof(made)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(made, path, len + 1);
    for (char *p = made + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        if (mkdir(made, 0755) != 0 && errno != EEXIST)
            return -1;
        *p = '/';
    }
    return mkdir(made, 0755) != 0 && errno != EEXIST ? -1 : 0;
}

/* The first directory in it, which is read from its beginning. False: there is none. */
static bool first_within(int dir, char name[NAME_MAX + 1])
{
    _Alignas(struct dirent64) char entries[2048];
    if (lseek(dir, 0, SEEK_SET) != 0)
        return false;
    for (long n; (n = syscall(SYS_getdents64, dir, entries, sizeof(entries))) > 0;) {
        for (long at = 0; at < n;) {
            const struct dirent64 *d = (const void *)(entries + at);
            at += d->d_reclen;
            if (d->d_type != DT_DIR || strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
                continue;
            strcpy(name, d->d_name);
            return true;
        }
    }
    return false;
}

/* Goes on in another directory, relative to this one. */
static int go(int *dir, const char *where)
{
    int next = openat(*dir, where, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (next < 0)
        return -1;
    close(*dir);
    *dir = next;
    return 0;
}

/* Whatever is in it, from below. One descriptor goes down as deep as that is, and no stack. */
static int empty(int *dir)
{
    char name[NAME_MAX + 1];
    bool removed = true; /* something of the directory that we are in */
    for (uint32_t depth = 0;;) {
        if (!first_within(*dir, name)) {
            if (depth == 0)
                return 0;
            errno = EBUSY;
            if (!removed || go(dir, "..") != 0)
                return -1; /* nothing is in it, and it cannot be removed */
            depth--;
        } else if (unlinkat(*dir, name, AT_REMOVEDIR) == 0) {
            removed = true;
        } else {
            if ((errno != EBUSY && errno != ENOTEMPTY) || go(dir, name) != 0)
                return -1;
            removed = false;
            depth++;
        }
    }
}

int directory_empty(int fd)
{
    int dir = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -1;
    int rc = empty(&dir), errnum = errno;
    close(dir);
    errno = errnum;
    return rc;
}
