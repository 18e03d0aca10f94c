/*
 * A walk without recursion: for each directory down to where it is there are two descriptors and
 * the place in the one that is read. See copy.h.
 */
#include "copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "descriptor.h"
#include "loop.h"

#define DEPTH_MAX 256u       /* images are not nested deeper */
#define ATTRS_MAX 4096u      /* bytes of a file's extended attributes; images have 3,900 */
#define PIECE     (1u << 20) /* between two looks at the clock */

struct level {
    int from, to;
    int64_t next; /* the place of what is behind the directory that we are in */
    struct stat st;
};

static struct level levels[DEPTH_MAX];

/* What tmpfs does not take is left out. */
static int copy_attributes(int from, int to)
{
    static char names[ATTRS_MAX], value[ATTRS_MAX];
    ssize_t n = flistxattr(from, names, sizeof(names));
    if (n < 0)
        return errno == EOPNOTSUPP ? 0 : -1;
    for (const char *name = names; name < names + n; name += strlen(name) + 1) {
        ssize_t size = fgetxattr(from, name, value, sizeof(value));
        if (size < 0 || (fsetxattr(to, name, value, (size_t)size, 0) != 0 && errno != EOPNOTSUPP &&
                            errno != EPERM))
            return -1;
    }
    return 0;
}

/* A system call costs most where the guest's kernel is emulated: none that changes nothing. */
static bool is_roots(const struct stat *st)
{
    return (st->st_uid | st->st_gid) == 0;
}

/* The owner first: a change of it takes setuid bits, and attributes that are capabilities. */
static int finish(int from, int to, const struct stat *st)
{
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    if (!is_roots(st) && fchown(to, st->st_uid, st->st_gid) != 0)
        return -1;
    return copy_attributes(from, to) != 0 || fchmod(to, st->st_mode & 07777) != 0 ||
                   futimens(to, times) != 0
               ? -1
               : 0;
}

static int own_name(const struct level *l, const char *name, const struct stat *st)
{
    return is_roots(st) ? 0 : fchownat(l->to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW);
}

static int in_time(uint64_t end_ns)
{
    if (loop_now_ns() < end_ns)
        return 0;
    errno = ETIMEDOUT;
    return -1;
}

static int copy_bytes(int from, int to, uint64_t end_ns)
{
    ssize_t n;
    while ((n = sendfile(to, from, NULL, PIECE)) > 0)
        if (in_time(end_ns) != 0)
            return -1;
    return n < 0 ? -1 : 0;
}

static int close_both(int from, int to, int rc)
{
    return close_after(from, close_after(to, rc));
}

static int copy_file(
    const struct level *l, const char *name, const struct stat *st, uint64_t end_ns)
{
    int from = openat(l->from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    int to = from < 0
                 ? -1
                 : openat(l->to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int rc = from < 0 || to < 0 || copy_bytes(from, to, end_ns) != 0 ? -1 : finish(from, to, st);
    return close_both(from, to, rc);
}

static int copy_link(const struct level *l, const char *name, const struct stat *st)
{
    static char target[PATH_MAX];
    ssize_t n = readlinkat(l->from, name, target, sizeof(target) - 1);
    if (n < 0)
        return -1;
    target[n] = 0;
    return symlinkat(target, l->to, name) != 0 ? -1 : own_name(l, name, st);
}

/* A device, a FIFO, a socket's name. */
static int copy_node(const struct level *l, const char *name, const struct stat *st)
{
    return mknodat(l->to, name, st->st_mode & S_IFMT, st->st_rdev) != 0 ||
                   own_name(l, name, st) != 0 || fchmodat(l->to, name, st->st_mode & 07777, 0) != 0
               ? -1
               : 0;
}

static int go_down(unsigned *depth, const char *name, const struct stat *st)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    const struct level *l = &levels[*depth];
    errno = ELOOP;
    if (*depth + 1 == DEPTH_MAX || mkdirat(l->to, name, 0700) != 0)
        return -1;
    int from = openat(l->from, name, flags);
    int to = openat(l->to, name, flags);
    if (from < 0 || to < 0)
        return close_both(from, to, -1);
    levels[++*depth] = (struct level){.from = from, .to = to, .st = *st};
    return 0;
}

/* Its times last: making something in it changes them. */
static int go_up(unsigned *depth)
{
    const struct level *l = &levels[(*depth)--];
    int rc = close_both(l->from, l->to, finish(l->from, l->to, &l->st));
    return rc == 0 && lseek(levels[*depth].from, levels[*depth].next, SEEK_SET) >= 0 ? 0 : -1;
}

/* *down: it was a directory, and that is where we are. */
static int copy_entry(unsigned *depth, const struct dirent64 *d, uint64_t end_ns, bool *down)
{
    struct level *l = &levels[*depth];
    struct stat st;
    if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
        return 0;
    if (in_time(end_ns) != 0 || fstatat(l->from, d->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return -1;
    if (S_ISREG(st.st_mode))
        return copy_file(l, d->d_name, &st, end_ns);
    if (S_ISLNK(st.st_mode))
        return copy_link(l, d->d_name, &st);
    if (!S_ISDIR(st.st_mode))
        return copy_node(l, d->d_name, &st);
    l->next = d->d_off;
    *down = true;
    return go_down(depth, d->d_name, &st);
}

/* What is read at once of the directory that we are in; *ended: there was nothing more. */
static int copy_some(unsigned *depth, uint64_t end_ns, bool *ended)
{
    static _Alignas(struct dirent64) char entries[2048];
    long n = syscall(SYS_getdents64, levels[*depth].from, entries, sizeof(entries));
    bool down = false;
    *ended = n == 0;
    int rc = n < 0 ? -1 : 0;
    for (long at = 0; rc == 0 && !down && at < n;) {
        const struct dirent64 *d = (const void *)(entries + at);
        at += d->d_reclen;
        rc = copy_entry(depth, d, end_ns, &down);
    }
    return rc;
}

int copy_within(int from, int to, uint64_t end_ns)
{
    unsigned depth = 0;
    bool ended = false;
    levels[0] = (struct level){.from = from, .to = to};
    int rc = lseek(from, 0, SEEK_SET) == 0 ? 0 : -1;
    while (rc == 0 && !(ended && depth == 0)) {
        if (ended)
            rc = go_up(&depth);
        ended = false;
        if (rc == 0)
            rc = copy_some(&depth, end_ns, &ended);
    }
    for (; rc != 0 && depth > 0; depth--)
        close_both(levels[depth].from, levels[depth].to, rc);
    return rc;
}
