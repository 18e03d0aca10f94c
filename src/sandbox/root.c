/*
 * A root file system with nothing in it but what was asked for: see sandbox.h, step 5.
 *
 * A tmpfs for which its owner has no block and few names, all read-only in the end. It is made over
 * /proc, the one directory that is there wherever we run (namespaces.c has written there), and
 * becomes the root by pivot_root(2), so that the old one is gone. That wants the old root to be a
 * mount of its own: it is not in a chroot(2) or an initramfs. There the new one is moved over the
 * old, and chroot(2) leads into it: without capabilities and without a descriptor of a directory
 * outside nobody finds the way out.
 *
 * A directory that stays is bound with all that is mounted below it: the kernel would not show what
 * a mount hides, and in containers /etc/resolv.conf is a mount.
 *
 * It runs before any list of system calls is in force.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/internal.h"
#include "util/cleanup.h"

#define PLACE "/proc"
/* A size or number of 0 would be none at all. Names are needed for the paths that stay: 256 are
 * more than a dozen of those have. */
#define ROOT_OPTIONS "mode=0755,size=4k,nr_inodes=256"
#define QUIET        (MS_NOSUID | MS_NODEV | MS_NOEXEC)

/* Makes the place for `path` (without its first slash), a file or a directory, below the current
 * directory. */
static int make_place(const char *path, bool directory)
{
    char part[PATH_MAX];
    for (const char *p = path; (p = strchr(p, '/')); p++) {
        snprintf(part, sizeof(part), "%.*s", (int)(p - path), path);
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return -1;
    }
    if (directory)
        return mkdir(path, 0755) < 0 && errno != EEXIST ? -1 : 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

static int bind(const char *path)
{
    struct mount_attr quiet = {
        .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
    };
    struct stat st;
    if (stat(path, &st) < 0)
        return sm_sandbox_is_left_out(errno) ? 0 : -1;
    const char *place = path + strspn(path, "/");
    if (make_place(place, S_ISDIR(st.st_mode)) < 0 ||
        mount(path, place, NULL, MS_BIND | MS_REC, NULL) < 0)
        return -1;
    return (int)syscall(SYS_mount_setattr, AT_FDCWD, place, AT_RECURSIVE, &quiet, sizeof(quiet));
}

/* The current directory becomes the root; the old one is gone. False: it is only covered. */
static int change_root(bool *gone)
{
    *gone = syscall(SYS_pivot_root, ".", ".") == 0;
    if (*gone)
        return umount2(".", MNT_DETACH) < 0 ? -1 : chdir("/");
    if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0)
        return -1;
    return chdir("/");
}

void sm_sandbox_empty_root(const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers)
{
    const char *what = "no mount is private";
    bool gone = false;
    if (spec->keeps_root) {
        sm_layer_set(layers, SM_LAYER_EMPTY_ROOT, SM_LAYER_NOT_WANTED, 0,
            "it finds things by paths of the host");
        return;
    }
    if (layers->layer[SM_LAYER_MOUNT_NAMESPACE].state != SM_LAYER_IN_FORCE) {
        sm_layer_set(
            layers, SM_LAYER_EMPTY_ROOT, SM_LAYER_MISSING, 0, "it takes a mount namespace");
        return;
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        goto failed;
    what = "no tmpfs can be mounted";
    if (mount("empty", PLACE, "tmpfs", QUIET, ROOT_OPTIONS) < 0 || chdir(PLACE) < 0)
        goto failed;
    for (const char *const *path = spec->read_paths; path && *path; path++) {
        what = *path;
        if (bind(*path) < 0)
            goto failed;
    }
    what = "it cannot be made read-only";
    if (mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | QUIET, NULL) < 0)
        goto failed;
    what = "the root cannot be changed";
    if (change_root(&gone) < 0)
        goto failed;
    sm_layer_set(layers, SM_LAYER_EMPTY_ROOT, gone ? SM_LAYER_IN_FORCE : SM_LAYER_PARTLY, 0,
        gone ? NULL : "the old root is covered, not gone: it is no mount of its own here");
    return;
failed:
    sm_layer_set(layers, SM_LAYER_EMPTY_ROOT, SM_LAYER_MISSING, errno, "%s", what);
}
