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
 * In a chroot(2) of root's no mount is ours to make private, and one that is made would be made for
 * all: there the tmpfs is mounted nowhere, and chroot(2) leads into it all the same. Paths that
 * stay cannot be put into such a one.
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
#define ROOT_SIZE    "4k"
#define ROOT_INODES  "256"
#define ROOT_OPTIONS "mode=0755,size=" ROOT_SIZE ",nr_inodes=" ROOT_INODES
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

/* An empty root that is mounted nowhere. */
static int enter_detached(void)
{
    auto_fd fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "size", ROOT_SIZE, 0) < 0 ||
        fsconfig(fs, FSCONFIG_SET_STRING, "nr_inodes", ROOT_INODES, 0) < 0 ||
        fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    auto_fd root = fsmount(fs, FSMOUNT_CLOEXEC,
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    return root < 0 || fchdir(root) < 0 || chroot(".") < 0 ? -1 : 0;
}

/* NULL, or what failed, with errno. */
static const char *make_root(const struct sm_sandbox_spec *spec, bool *gone)
{
    *gone = false;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return errno == EINVAL && !spec->read_paths && enter_detached() == 0
                   ? NULL
                   : "no mount is private";
    if (mount("empty", PLACE, "tmpfs", QUIET, ROOT_OPTIONS) < 0 || chdir(PLACE) < 0)
        return "no tmpfs can be mounted";
    for (const char *const *path = spec->read_paths; path && *path; path++)
        if (bind(*path) < 0)
            return *path;
    if (mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | QUIET, NULL) < 0)
        return "it cannot be made read-only";
    return change_root(gone) < 0 ? "the root cannot be changed" : NULL;
}

void sm_sandbox_empty_root(const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers)
{
    bool gone;
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
    const char *failed = make_root(spec, &gone);
    if (failed)
        sm_layer_set(layers, SM_LAYER_EMPTY_ROOT, SM_LAYER_MISSING, errno, "%s", failed);
    else if (gone)
        sm_layer_set(layers, SM_LAYER_EMPTY_ROOT, SM_LAYER_IN_FORCE, 0, NULL);
    else
        sm_layer_set(layers, SM_LAYER_EMPTY_ROOT, SM_LAYER_PARTLY, 0,
            "the old root is covered, not gone: it is no mount of its own here");
}
