/*
 * Makes the machine a container: the image's file system, mapped read-only, with a tmpfs over it,
 * and the file systems that programs expect.
 *
 * We start in the kernel's initramfs, which holds /init, /dev and /root (the last two come with
 * every kernel). A tmpfs on /root holds everything else: l (the image), u (upper), w (the overlay's
 * work), s (what becomes /dev/shm), n (the new root). It is bounded (bounds.h), and so is all that
 * can be written. hosts, hostname and machine-id are put into u before the overlay is mounted: no
 * copy-up (upper.c). All other file systems are mounted from inside of the new root, so that links
 * of the image lead to where they lead in it. Directories that it lacks are made when a mount
 * misses them.
 */
#include "boot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bounds.h"
#include "console.h"
#include "net.h"
#include "system.h"
#include "upper.h"

#define LOWER "/root/l"
#define UPPER "/root/u"
#define WORK  "/root/w"
#define SHM   "/root/s"
#define ROOT  "/root/n"

/* Nodes and links are all that there is to be in /dev. */
#define DEV_OPTIONS "size=4m"

/* How long the root file system's device is waited for: 10 s. */
#define DEVICE_POLL_NS 5000000
#define DEVICE_POLLS   2000

/* podman's limits, soft and hard ones. */
#define OPEN_FILES 1048576
#define PROCESSES  32768

static void must_mkdir(const char *path)
{
    if (mkdir(path, 0755) != 0 && errno != EEXIST)
        die("cannot make directory ", path, errno);
}

static void must_mount(const char *type, const char *source, const char *target,
    unsigned long flags, const char *options)
{
    if (mount(source, target, type, flags, options) == 0)
        return;
    if (errno == ENOENT) {
        must_mkdir(target);
        if (mount(source, target, type, flags, options) == 0)
            return;
    }
    if (errno == ENOTDIR || errno == ENOENT || errno == ELOOP)
        die("the image has something else than a directory at ", target, errno);
    die("cannot mount ", target, errno);
}

/* 0, 1 and 2 are /dev/null for us and for who wants no stream. The kernel had no console to open.
 */
static void open_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd < 2);
    if (fd < 0)
        die("cannot open ", "/dev/null", errno);
    if (fd > 2) {
        dup2(fd, 0);
        dup2(fd, 1);
        dup2(fd, 2);
        close(fd);
    }
}

/* The kernel registers pmem devices in the background and starts us without waiting for them; a
 * node is there (ENXIO) before what it stands for. */
static void await_device(const char *device)
{
    const struct timespec pause = {.tv_nsec = DEVICE_POLL_NS};
    int fd;
    for (unsigned i = 0; (fd = open(device, O_RDONLY | O_CLOEXEC)) < 0; i++) {
        if (i == DEVICE_POLLS)
            die("cannot open the root file system device ", device, errno);
        nanosleep(&pause, NULL);
    }
    close(fd);
}

static void mount_image(const char *device)
{
    unsigned long flags = MS_RDONLY | MS_NOATIME;
    await_device(device);
    if (mount(device, LOWER, "ext4", flags, "dax=always,inode_readahead_blks=0") != 0 &&
        mount(device, LOWER, "ext4", flags, NULL) != 0)
        die("cannot mount the root file system ", device, errno);
}

/* What is in no image: links to a process's own streams. A console is only there with a terminal,
 * and who may use a tunnel is asked when he does. */
static void settle_dev(void)
{
    unlink("/dev/console");
    (void)chmod("/dev/net/tun", 0666);
    if (symlink("/proc/self/fd", "/dev/fd") != 0 || symlink("/proc/self/fd/0", "/dev/stdin") != 0 ||
        symlink("/proc/self/fd/1", "/dev/stdout") != 0 ||
        symlink("/proc/self/fd/2", "/dev/stderr") != 0)
        die("cannot make links in ", "/dev", errno);
}

/* The tmpfs that holds all that is written. */
static void mount_layer(void)
{
    static const char mode[] = "mode=755,size=";
    char options[sizeof(mode) + BOUNDS_TEXT], number[BOUNDS_TEXT];
    memcpy(options, mode, sizeof(mode));
    strcat(options, bounds_text(number, bounds_here().layer));
    must_mount("tmpfs", "root", "/root", 0, options);
    must_mkdir(LOWER);
    must_mkdir(UPPER);
    must_mkdir(WORK);
    must_mkdir(ROOT);
    must_mkdir(SHM);
    if (chmod(SHM, 01777) != 0)
        die("cannot make directory ", SHM, errno);
}

/* What becomes /dev/shm, as a mount that is nowhere yet: the way there ends with the new root. */
static int shm_tree(void)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, SHM, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd < 0 || syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) != 0)
        die("cannot clone ", SHM, errno);
    return fd;
}

static void mount_shm(int tree)
{
    must_mkdir("/dev/shm");
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, "/dev/shm", MOVE_MOUNT_F_EMPTY_PATH) != 0)
        die("cannot mount ", "/dev/shm", errno);
    close(tree);
}

static void switch_root(void)
{
    if (chdir(ROOT) != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 ||
        chdir("/") != 0)
        die("cannot change to the new root ", ROOT, errno);
}

/* As container engines set them. A kernel without one of them does without. */
static void set_kernel(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, value, strlen(value)) < 0)
        die("cannot set ", path, errno);
    close(fd);
}

/* hosts, hostname and the like, where the image's /etc is. */
static void make_etc(const char *hostname)
{
    static struct upper_dir etc = {.lower = LOWER, .upper = UPPER};
    const char *what = "cannot make /etc";
    int dir;
    int e = upper_dir_make(&etc, "/etc", &dir);
    if (e == ENOTDIR || e == ELOOP)
        die("the image has something else than a directory at ", "/etc", e);
    if (e == 0)
        e = system_init(dir, hostname, &what);
    if (e == 0)
        e = upper_dir_finish(&etc);
    if (e != 0)
        die(what, "", e);
    close(dir);
}

/* What is inherited from us: limits as podman's and root's own group. */
static void start_with(void)
{
    static const struct rlimit files = {OPEN_FILES, OPEN_FILES}, processes = {PROCESSES, PROCESSES};
    static const gid_t root = 0;
    /* musl's functions bring thread code along */
    if (prlimit(0, RLIMIT_NOFILE, &files, NULL) != 0 ||
        prlimit(0, RLIMIT_NPROC, &processes, NULL) != 0)
        die("cannot set limits", "", errno);
    if (syscall(SYS_setgroups, 1, &root) != 0)
        die("cannot set groups", "", errno);
}

void boot(const char *hostname, const char *root)
{
    must_mount("devtmpfs", "dev", "/dev", MS_NOSUID, DEV_OPTIONS);
    open_streams();
    mount_layer();
    mount_image(root);
    make_etc(hostname);
    must_mount("overlay", "overlay", ROOT, 0,
        "lowerdir=" LOWER ",upperdir=" UPPER ",workdir=" WORK
        ",redirect_dir=on,metacopy=on,volatile");
    int shm = shm_tree();
    switch_root();
    must_mount("devtmpfs", "dev", "/dev", MS_NOSUID, NULL);
    must_mkdir("/dev/pts");
    must_mkdir("/dev/mqueue"); /* which belongs to the container's IPC namespace */
    mount_shm(shm);
    settle_dev();
    must_mount(
        "devpts", "devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
    must_mount("proc", "proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    must_mount("sysfs", "sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    must_mount("cgroup2", "cgroup", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    network_up();
    set_kernel("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    set_kernel("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    /* What distributions have by now, and Elasticsearch looks for. */
    set_kernel("/proc/sys/vm/max_map_count", "1048576");
    /* A container's bound is on what it uses: what is reserved and not touched is refused by no
     * engine, as a host has more memory. Redis looks for it. */
    set_kernel("/proc/sys/vm/overcommit_memory", "1");
    start_with();
}
